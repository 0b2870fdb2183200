"""How long do all layers of a network take over 50,000 images?

    python -m benchmarks.at_scale --weights=DIR                      # as on a GPU
    python -m benchmarks.at_scale --weights=DIR --images=64 --few=16 --batch_size=8 \
        --segment_batch=1 --dtype=float32                            # a look on a CPU

ImageNet's validation set has so many. `--weights` holds what the converters made
(resnet50/, upernet/, color/). Pixels are drawn, label maps computed, features kept
where there is room, as by `jdissect.main`; neither decoding nor writing is in it. Whole
runs over `--few` and over all images: what a run pays once (tracing, programs read
back) is what is left of the first without the time that its images take. Names the
kernels that take longest, too.
"""

import functools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import drawn, kernels, record
from benchmarks.support.options import parse
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.data.loader import Batch
from jdissect.dissection.engine import Dissection, Settings
from jdissect.jobs.batches import feature_bytes, feature_shapes, network_of
from jdissect.models.resnet import ResNet
from jdissect.runtime import command_line, machine
from jdissect.runtime.devices import network_devices
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.upernet import UPerNetSegmenter

SIDE = 224
_POOL = 512  # different pictures


OPTIONS = {
    "weights": ("", "Folder of converted checkpoints."),
    "images": (50_000, "In all."),
    "few": (5_000, "Images of the shorter run."),
    "layers": (list(ResNet.stage_names), "Layers to dissect."),
    "batch_size": (256, "Images a device a step."),
    "segment_batch": (64, "Images a device a call of the segmenter."),
    "dtype": (("bfloat16", "float32"), "Of networks."),
    "features": (machine.FEATURES, "Where features are kept."),
    "save": ("", "Name of files for benchmarks/results."),
}


class Engine:
    """Whole dissections of drawn images.

    Args:
      options: flags, as `OPTIONS` has them.
    """

    def __init__(self, options):
        self._options = options
        self._devices, self._counters = network_devices("shard_map")
        weights, dtype = Path(options.weights), options.dtype
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
        self._layers = tuple(options.layers)
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
            keep=machine.keep_features(
                self._options.features,
                size,
                count,
                spill,
                free_on_devices=machine.free_on(self._devices.devices),
            ),
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


def measure(options) -> tuple[list[dict[str, Any]], str]:
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
    options = parse(argv, "at_scale", OPTIONS, paths=("weights",))
    if options.few >= options.images:
        raise UserError(
            f"--few is {options.few}; it must be less than --images, {options.images}"
        )
    machine.use_compilation_cache(machine.cache_dir(""))
    rows, longest = measure(options)
    print(record.text(rows))
    notes = [
        f"{options.images} images of {SIDE}x{SIDE} drawn pixels, "
        f"{','.join(options.layers)}, UPerNet and colours; "
        f"{options.dtype}, {options.batch_size} images a step, "
        f"{options.segment_batch} a call of the segmenter.",
        f"The longest kernels, of all kernels' time: {longest}.",
    ]
    print("\n" + "\n".join(notes))
    if options.save:
        record.write(
            options.save,
            rows,
            title=f"{options.images} images, {len(options.layers)} layers",
            command="python -m benchmarks.at_scale --weights=... "
            f"--images={options.images} --few={options.few} "
            f"--batch_size={options.batch_size} "
            f"--segment_batch={options.segment_batch} --dtype={options.dtype}",
            notes=notes,
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
