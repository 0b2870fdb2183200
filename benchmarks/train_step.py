"""What augmentation costs a training step.

    python -m benchmarks.train_step --batch_size=16

A step of SGD of a ResNet at 224 pixels, on images as they are ('plain'), with the
standard augmentation, and with that and each recipe. All are run in turn, `--rounds`
times; medians are printed, and how much longer than the step without: of the standard
augmentation than plain, of a recipe than the standard augmentation alone. Beside it
the time of the augmentation by itself. Aims: 5 %, SaliencyMix 15 %.
"""

import statistics
import sys
import time
import types

import jax
import numpy as np
from absl import flags

from jdissect import augment
from jdissect.models.preprocess import IMAGENET
from jdissect.parallel import Devices
from jdissect.training import recipe, step
from jdissect.training.initialization import initial_parameters

SIDE, CANVAS = 224, 512


def define() -> flags.FlagValues:
    """The flags."""
    values = flags.FlagValues()
    options = {"flag_values": values}
    flags.DEFINE_string("model", "resnet50", "Architecture.", **options)
    flags.DEFINE_integer("batch_size", 8, "Images a step.", **options)
    flags.DEFINE_string("dtype", "float32", "Of the network.", **options)
    flags.DEFINE_integer("rounds", 7, "Times to run each.", **options)
    return values


def settings(name: str) -> types.SimpleNamespace:
    """As `config.augment`: 'plain', 'standard', or a recipe with the standard one."""
    standard = name != "plain"
    return types.SimpleNamespace(
        recipe=name if name in augment.RECIPES else "none",
        alpha=1.0,
        group=0,
        one_box_per_batch=None,
        crop=standard,
        crop_area=0.08,
        flip=standard,
        jitter=0.4 * standard,
        lighting=0.1 * standard,
    )


def timed(run) -> float:
    """Milliseconds until the arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return 1000 * (time.perf_counter() - start)


def main(argv: list[str]) -> int:
    """Measures and prints."""
    options = define()
    options(argv)
    devices, count = Devices(), options.batch_size
    rng = np.random.default_rng(0)
    # ImageNet's usual size on the canvas; plain images have the network's size.
    pixels = rng.integers(0, 256, (count, CANVAS, CANVAS, 3), np.uint8)
    sizes = np.tile(np.array([[375, 500]], np.int32), (count, 1))
    labels = rng.integers(0, 1000, count).astype(np.int32)
    architecture = {"name": options.model, "classes": 1000}
    optimizer = recipe.optimizer(recipe.learning_rate(0.1, ()), 0.9, 1e-4)
    start = initial_parameters(architecture, 0)
    state = devices.states(step.initial_state(architecture, optimizer, start))
    move = step.train_step(
        architecture,
        optimizer,
        devices,
        batch_size=count,
        bn_group=count,
        dtype=options.dtype,
    )

    names = ["plain", "standard", *(n for n in augment.RECIPES if n != "none")]
    augmented = {
        name: step.augmentation(settings(name), SIDE, IMAGENET, 0, devices)
        for name in names
    }

    def batch(name):
        if name != "plain":
            return augmented[name](0, pixels, sizes, labels)
        small = np.ascontiguousarray(pixels[:, :SIDE, :SIDE])
        return augmented[name](0, small, np.full_like(sizes, SIDE), labels)

    def whole(name):
        nonlocal state
        state, loss = move(state, batch(name))
        return loss

    alone = {name: [] for name in names}
    together = {name: [] for name in names}
    for number in range(options.rounds + 1):
        for name in names:
            took = (
                timed(lambda name=name: batch(name)),
                timed(lambda name=name: whole(name)),
            )
            if number:  # the first round compiles
                alone[name].append(took[0])
                together[name].append(took[1])
    device = devices.devices[0].device_kind
    print(f"{options.model}, batch {count}, {options.dtype}, {device}\n")
    print("              step  augmentation alone  cost")
    median = {name: statistics.median(times) for name, times in together.items()}
    by_itself = {name: statistics.median(times) for name, times in alone.items()}
    network = median["plain"] - by_itself["plain"]
    for name in names:
        without = {"plain": "plain", "standard": "plain"}.get(name, "standard")
        cost = median[name] / median[without] - 1
        share = (by_itself[name] - by_itself[without]) / (network + by_itself[without])
        print(
            f"{name:11s} {median[name]:7.1f} ms  {by_itself[name]:7.2f} ms  "
            f"{100 * cost:+6.1f} % of {without} ({100 * share:+.1f} % by itself)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
