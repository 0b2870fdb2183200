"""Where does the time of a dissection go?

    python -m benchmarks.stages                          # random weights and images
    python -m benchmarks.stages --broden=FOLDER --weights=DIR

In milliseconds an image. Stages: decode (JPEG to pixels, threads, nothing else
running), forward (the network alone), upsample (the maps alone, written to memory; a
dissection never does that), sketch, sweeps and intersections (the passes over kept
features, each of which makes its own pixels). Every stage runs `--rounds` times, in
turn; medians are printed.
"""

import statistics
import sys
import time

import jax
import numpy as np

from benchmarks.support import drawn
from benchmarks.support.options import parse
from jdissect import models
from jdissect.checkpoints import networks
from jdissect.data import loader
from jdissect.datasets.broden import open_broden
from jdissect.dissection.engine import Dissection, Settings
from jdissect.models.preprocess import IMAGENET, normalize
from jdissect.ops.upsample import upsample
from jdissect.runtime import command_line, machine
from jdissect.runtime.devices import Devices
from jdissect.training.initialization import initial_parameters

OPTIONS = {
    "model": ("resnet50", "Architecture."),
    "weights": ("", "Checkpoint; '' is random weights."),
    "layer": ("layer4", "Layer to probe."),
    "broden": ("", "Folder; '' is random images."),
    "images": (256, "How many."),
    "batch_size": (32, "Images a step."),
    "mask_size": (56, "Side of the mask grid."),
    "concepts": (40, "Concepts an image, random."),
    "rounds": (3, "Times to run each stage."),
}


def network(options):
    """(apply, params) that returns the layer's features of uint8 pixels."""
    if options.weights:
        model = networks.load_classifier(options.weights, options.model)
        apply, params, preprocessing = model.apply, model.params, model.preprocessing
    else:
        architecture = {"name": options.model}
        drawn = initial_parameters(architecture, 0)
        apply, params = models.for_inference(architecture, drawn)
        preprocessing = IMAGENET

    def features(params, pixels):
        images = normalize(pixels, preprocessing)
        return apply(params, images, (options.layer,))[1]

    return models.by_parts(features), params


def read_images(options, rng):
    """(pixels of all images, seconds of decoding or None)."""
    if not options.broden:
        return drawn.photographs(rng, options.images, 224), None
    source = open_broden(options.broden, num_images=options.images)
    start = time.perf_counter()
    pixels = [b.pixels[b.valid] for b in loader.batches(source, options.batch_size)]
    return np.concatenate(pixels), time.perf_counter() - start


def run_once(engine_of, pixels, labels, count, size) -> dict[str, float]:
    """Seconds by stage of a whole run over the first `count` images."""

    read = drawn.reader(count, size, lambda index: (pixels[index], labels[index]))
    engine = engine_of()
    start = time.perf_counter()
    engine.run(read, count)
    return {**engine.seconds, "whole run": time.perf_counter() - start}


def measure(options) -> dict[str, float]:
    """Milliseconds an image by stage.

    Of the passes, the time of all images less that of half of them, so that what
    a run pays once (tracing, loading compiled programs) is left out; "once" says it.
    """
    rng = np.random.default_rng(0)
    apply, params = network(options)
    pixels, decoding = read_images(options, rng)
    size = options.batch_size
    count = len(pixels) - len(pixels) % size
    few = max(size, count // 2 // size * size)
    labels = drawn.label_maps(rng, count, options.mask_size, options.concepts)
    forward = jax.jit(apply)
    upsampled = jax.jit(
        lambda maps: upsample(maps, (options.mask_size, options.mask_size))
    )
    concepts = [("-", "-")] + [(f"c{i}", "object") for i in range(1, 1800)]
    settings = Settings(layers=(options.layer,))
    counters = Devices()
    first = Devices(devices=counters.devices[:1])

    def engine():
        return Dissection(apply, params, concepts, settings, first, counters)

    rounds: dict[str, list[float]] = {}

    def note(stage, milliseconds):
        rounds.setdefault(stage, []).append(milliseconds)

    for number in range(options.rounds + 1):  # the first compiles
        start = time.perf_counter()
        for begin in range(0, count, size):
            maps = forward(params, pixels[begin : begin + size])[options.layer]
            maps.block_until_ready()
        forwarded = (time.perf_counter() - start) / count * 1e3
        start = time.perf_counter()
        for image in maps:
            upsampled(image).block_until_ready()
        upsampling = (time.perf_counter() - start) / len(maps) * 1e3
        some = run_once(engine, pixels, labels, few, size)
        every = run_once(engine, pixels, labels, count, size)
        if not number:
            continue
        note("forward", forwarded)
        note("upsample", upsampling)
        for stage in ("sketch", "sweeps", "intersections", "whole run"):
            each = (every[stage] - some[stage]) / (count - few) * 1e3
            note(stage, each)
        note("once", every["whole run"] * 1e3 - each * count)
    found = {stage: statistics.median(times) for stage, times in rounds.items()}
    if decoding is not None:
        found = {"decode": decoding / len(pixels) * 1e3, **found}
    return found


def main(argv) -> int:
    """Prints the table."""
    options = parse(argv, "stages", OPTIONS)
    machine.offer_cores()
    machine.use_compilation_cache(machine.cache_dir(""))
    found = measure(options)
    device = jax.devices()[0]
    cores = f"{jax.device_count()} {device.device_kind} device(s)"
    print(
        f"{options.model} {options.layer}, mask {options.mask_size}, float32, "
        f"{options.images} images, {cores}, jax {jax.__version__}"
    )
    once = found.pop("once")
    for stage, milliseconds in found.items():
        print(f"{stage:14s} {milliseconds:8.2f} ms/image")
    print(f"{'a run, once':14s} {once / 1e3:8.2f} s")
    passes = found["sketch"] + found["sweeps"] + found["intersections"]
    print(f"passes / forward    {passes / found['forward']:.3f}   (aim: at most 0.3)")
    print(f"whole run / forward {found['whole run'] / found['forward']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
