"""How much longer does augmentation make a training step?

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
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from benchmarks.support.options import parse
from jdissect import augment
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices
from jdissect.training import recipe, step
from jdissect.training.initialization import initial_parameters

SIDE, CANVAS = 224, 512

OPTIONS = {
    "model": ("resnet50", "Architecture."),
    "batch_size": (8, "Images a step."),
    "dtype": (("float32", "bfloat16"), "Of the network."),
    "rounds": (7, "Times to run each."),
}


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


class Training:
    """jdissect's training step: augmentation, then SGD, on all devices.

    Args:
      batch_size: images a step; all are normalized together.
      dtype: type of the network's computation.
      model: ResNet; `classes`, and options such as its width, are its own.
      side: side of the network's images, in pixels.
      rate: of learning.
      start: every parameter and statistic by name; by default random.

    Attributes:
      devices: of this process.
      state: as `step.train_step` moves it; see `parameters`.
    """

    def __init__(
        self,
        batch_size: int,
        dtype: str = "float32",
        *,
        model: str = "resnet50",
        classes: int = 1000,
        side: int = SIDE,
        rate: float = 0.1,
        start: Mapping[str, np.ndarray] | None = None,
        **options: int,
    ):
        architecture = {"name": model, "classes": classes, **options}
        optimizer = recipe.optimizer(recipe.learning_rate(rate, ()), 0.9, 1e-4)
        if start is None:
            start = initial_parameters(architecture, 0)
        self.devices, self.side = Devices(), side
        self.state = self.devices.states(
            step.initial_state(architecture, optimizer, start)
        )
        self._move = step.train_step(
            architecture,
            optimizer,
            self.devices,
            batch_size=batch_size,
            bn_group=batch_size,
            dtype=dtype,
        )
        self._augmentations = {}

    def augment(
        self,
        name: str,
        pixels: UInt8[np.ndarray, "batch height width 3"],
        sizes: Int[np.ndarray, "batch 2"],
        labels: Int[np.ndarray, " batch"],
    ) -> dict[str, jax.Array]:
        """What a step trains on: the fields of `augment.Mixture`.

        Args:
          name: as for `settings`; 'plain' trains on the canvas's top left.
          pixels: RGB on a canvas.
          sizes: height and width of each image on it.
          labels: class numbers.
        """
        if name not in self._augmentations:
            self._augmentations[name] = step.augmentation(
                settings(name), self.side, IMAGENET, 0, self.devices
            )
        if name == "plain":
            pixels = np.ascontiguousarray(pixels[:, : self.side, : self.side])
            sizes = np.full_like(sizes, self.side)
        return self._augmentations[name](0, pixels, sizes, labels)

    def train(self, batch: Mapping[str, Any]) -> jax.Array:
        """A step of SGD on an augmented batch; its loss, [devices] equal numbers."""
        self.state, loss = self._move(self.state, batch)
        return loss

    def step(self, name: str, pixels, sizes, labels) -> jax.Array:
        """Both: arguments as `augment`, result as `train`."""
        return self.train(self.augment(name, pixels, sizes, labels))

    def parameters(self) -> dict[str, np.ndarray]:
        """Every parameter and statistic by name."""
        return step.parameters(step.first_copy(self.state))


def photographs(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, sizes and labels of noise as large as ImageNet's usual photograph."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, CANVAS, CANVAS, 3), np.uint8)
    sizes = np.tile(np.array([[375, 500]], np.int32), (count, 1))
    return pixels, sizes, rng.integers(0, 1000, count).astype(np.int32)


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds until the arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return 1000 * (time.perf_counter() - start)


def main(argv: list[str]) -> int:
    """Measures and prints."""
    options = parse(argv, "train_step", OPTIONS)
    count = options.batch_size
    batch = photographs(count)
    training = Training(count, options.dtype, model=options.model)
    names = ["plain", "standard", *(n for n in augment.RECIPES if n != "none")]
    alone = {name: [] for name in names}
    together = {name: [] for name in names}
    for number in range(options.rounds + 1):
        for name in names:
            took = (
                timed(lambda name=name: training.augment(name, *batch)),
                timed(lambda name=name: training.step(name, *batch)),
            )
            if number:  # the first round compiles
                alone[name].append(took[0])
                together[name].append(took[1])
    device = training.devices.devices[0].device_kind
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
    sys.exit(command_line.entry(main))
