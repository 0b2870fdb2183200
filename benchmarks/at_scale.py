"""All layers of a network over as many images as ImageNet's validation set has.

    python -m benchmarks.at_scale --weights=DIR                      # as on a GPU
    python -m benchmarks.at_scale --weights=DIR --images=64 --few=16 --batch_size=8 \
        --segment_batch=1 --dtype=float32                            # a look on a CPU

`--weights` holds what the converters made (resnet50/, upernet/, color/). Pixels are
drawn, label maps computed, features kept where there is room, as by `jdissect.main`;
neither decoding nor writing is in it. Whole runs over `--few` and over all images: what
a run pays once (tracing, programs read back) is what is left of the first without the
time that its images take. Names the kernels that take longest, too.
"""

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import drawn, kernels, record
from jdissect.checkpoints import networks
from jdissect.data.loader import Batch
from jdissect.dissection.engine import Dissection, Settings
from jdissect.jobs.batches import feature_bytes, feature_shapes, network_of
from jdissect.runtime import command_line, machine
from jdissect.runtime.devices import network_devices
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.upernet import UPerNetSegmenter

SIDE = 224
_POOL = 512  # different pictures


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", type=Path, required=True, help="converted checkpoints")
    add("--images", type=int, default=50_000)
    add("--few", type=int, default=5_000, help="images of the shorter run")
    add("--layers", default="stem,layer1,layer2,layer3,layer4")
    add("--batch_size", type=int, default=256, help="images a device a step")
    add("--segment_batch", type=int, default=64, help="images a device a call")
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    add("--features", default="auto", choices=machine.FEATURES)
    add("--save", default="", help="name of files for benchmarks/results")
    options = parser.parse_args(argv[1:])
    if not 0 < options.few < options.images:
        parser.error("--few must be less than --images")
    return options


class Engine:
    """Whole dissections of drawn images.

    Args:
      options: as `parse` gives them.
    """

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._devices, self._counters = network_devices("shard_map")
        weights, dtype = options.weights, options.dtype
        self._model = networks.load_classifier(weights / "resnet50", dtype=dtype)
        self._segmenter = UPerNetSegmenter(
            networks.load_segmenter(weights / "upernet", "upernet", dtype=dtype),
            networks.load_segmenter(weights / "color", "ppm", dtype=dtype),
            devices=self._devices,
            cache=LabelCache(None),
            hashes=[str(number) for number in range(options.images)],
            batch_size=options.segment_batch,
            dtype=dtype,
        )
        self._layers = tuple(options.layers.split(","))
        self._apply = network_of(self._model, self._layers, dtype)
        self._pool = drawn.photographs(np.random.default_rng(0), _POOL, SIDE)
        self._size = options.batch_size * len(self._devices)

    def run(self, count: int) -> dict[str, float]:
        """Seconds by stage of a dissection of the first `count` images."""
        folder = machine.cache_dir("")
        spill = folder and folder / "features"
        size = feature_bytes(
            feature_shapes(self._apply, self._model.params, (SIDE, SIDE))
        )
        settings = Settings(
            layers=self._layers,
            keep=machine.keep_features(self._options.features, size, count, spill),
            folder=spill,
        )
        engine = Dissection(
            self._apply,
            self._model.params,
            self._segmenter.concepts,
            settings,
            self._devices,
            self._counters,
        )
        start = time.perf_counter()
        engine.run(drawn.reader(count, self._size, self._batch), count)
        return {**engine.seconds, "whole run": time.perf_counter() - start}

    def _batch(self, index):
        batch = Batch(index, index >= 0, self._pool[index % _POOL], None, None, ())
        return batch.pixels, functools.partial(self._segmenter.label_maps, batch)


def measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """A row a stage, and the longest kernels in words."""
    engine = Engine(options)
    engine.run(options.few)  # compiles
    few, every = engine.run(options.few), engine.run(options.images)
    rows = []
    for stage, seconds in every.items():
        each = (seconds - few[stage]) / (options.images - options.few)
        row = {"stage": stage, "s": round(seconds, 2), "ms an image": 1e3 * each}
        row["once, s"] = round(few[stage] - options.few * each, 2)
        row["without that, s"] = round(options.images * each, 2)
        rows.append(row)
    few = 2 * options.batch_size
    return rows, kernels.in_words(kernels.longest(lambda: engine.run(few)))


def main(argv: list[str]) -> int:
    """Measures and prints; if asked, saves."""
    options = parse(argv)
    machine.use_compilation_cache(machine.cache_dir(""))
    rows, longest = measure(options)
    print(record.text(rows))
    notes = [
        f"{options.images} images of {SIDE}x{SIDE} drawn pixels, {options.layers}, "
        f"UPerNet and colours; {options.dtype}, {options.batch_size} images a step, "
        f"{options.segment_batch} a call of the segmenter.",
        f"The longest kernels, of all kernels' time: {longest}.",
    ]
    print("\n" + "\n".join(notes))
    if options.save:
        record.write(
            options.save,
            rows,
            title=f"{options.images} images, {len(options.layers.split(','))} layers",
            command="python -m benchmarks.at_scale --weights=... "
            f"--images={options.images} --few={options.few} "
            f"--batch_size={options.batch_size} "
            f"--segment_batch={options.segment_batch} --dtype={options.dtype}",
            notes=notes,
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
