"""Where the time of a dissection goes, in milliseconds an image.

    python -m benchmarks.stages                          # random weights and images
    python -m benchmarks.stages --broden=FOLDER --weights=DIR

Stages: decode (JPEG to pixels, threads, nothing else running), forward (the network
alone), upsample (the maps alone, written to memory; a dissection never does that),
sketch, sweeps and intersections (the passes over kept features, each of which makes
its own pixels). Every stage runs `--rounds` times, in turn; medians are printed.
"""

import statistics
import sys
import time

import jax
import numpy as np
from absl import flags

from jdissect import checkpoints, environment, models
from jdissect.data import loader
from jdissect.data.broden import open_broden
from jdissect.dissection import Dissection, Settings
from jdissect.features import Images
from jdissect.models.preprocess import IMAGENET, normalize
from jdissect.ops.upsample import upsample
from jdissect.parallel import Devices


def define() -> flags.FlagValues:
    """The flags."""
    values = flags.FlagValues()
    options = {"flag_values": values}
    flags.DEFINE_string("model", "resnet50", "Architecture.", **options)
    flags.DEFINE_string("weights", "", "Checkpoint; '' is random weights.", **options)
    flags.DEFINE_string("layer", "layer4", "Layer to probe.", **options)
    flags.DEFINE_string("broden", "", "Folder; '' is random images.", **options)
    flags.DEFINE_integer("images", 256, "How many.", **options)
    flags.DEFINE_integer("batch_size", 32, "Images a step.", **options)
    flags.DEFINE_integer("mask_size", 56, "Side of the mask grid.", **options)
    flags.DEFINE_integer("concepts", 40, "Concepts an image, random.", **options)
    flags.DEFINE_integer("rounds", 3, "Times to run each stage.", **options)
    return values


def network(options):
    """(apply, params) that returns the layer's features of uint8 pixels."""
    if options.weights:
        model = checkpoints.load_classifier(options.weights, options.model)
        apply, params, preprocessing = model.apply, model.params, model.preprocessing
    else:
        from flax import nnx

        model = nnx.jit(lambda: models.build(options.model, rngs=nnx.Rngs(0)))()
        apply, params = models.as_function(model)
        preprocessing = IMAGENET

    def features(params, pixels):
        images = normalize(pixels, preprocessing)
        return apply(params, images, (options.layer,))[1]

    return models.by_parts(features), params


def smooth(rng, shape, side):
    """Random photographs-to-be: smooth at the scale of `side` pixels."""
    coarse = rng.integers(0, 256, (shape[0], 8, 8, 3)).astype(np.float32)
    grown = np.asarray(upsample(coarse, (side, side)))
    return (grown + rng.normal(0, 20, grown.shape)).clip(0, 255).astype(np.uint8)


def read_images(options, rng):
    """(pixels of all images, seconds of decoding or None)."""
    if not options.broden:
        return smooth(rng, (options.images,), 224), None
    source = open_broden(options.broden, num_images=options.images)
    start = time.perf_counter()
    pixels = [b.pixels[b.valid] for b in loader.batches(source, options.batch_size)]
    return np.concatenate(pixels), time.perf_counter() - start


def label_maps(options, rng, count):
    """Blocky label maps: six maps, so many concepts an image out of 1,800."""
    side, cells = options.mask_size, 7
    found = np.zeros((count, 6, side, side), np.int32)
    for image in range(count):
        here = rng.choice(np.arange(1, 1800), options.concepts, replace=False)
        coarse = rng.choice(here, (6, cells, cells))
        grown = coarse.repeat(-(-side // cells), 1).repeat(-(-side // cells), 2)
        found[image] = grown[:, :side, :side]
    return found


def run_once(engine_of, pixels, labels, count, size) -> dict[str, float]:
    """Seconds by stage of a whole run over the first `count` images."""

    def read(indices=None, start=0, stop=None):
        wanted = np.arange(count) if indices is None else np.asarray(indices)
        for start in range(0, len(wanted), size):
            index = wanted[start : start + size]
            missing = size - len(index)
            yield Images(
                index=np.pad(index, (0, missing), constant_values=-1),
                valid=np.arange(size) < len(index),
                pixels=pixels[np.pad(index, (0, missing))],
                labels=labels[np.pad(index, (0, missing))],
            )

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
    labels = label_maps(options, rng, count)
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
    options = define()
    options(argv)
    environment.offer_cores()
    environment.use_compilation_cache(environment.cache_dir(""))
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
    sys.exit(main(sys.argv))
