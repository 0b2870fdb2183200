"""One pipeline of `benchmarks.versus_torch`, in a process of its own.

Lines come in, as JSON: {"images": 16, "networks": 1, "layers": ["layer4"], "cached":
false, "batch_size": 8}; for each a line goes out: seconds, and the largest resident
memory so far in MB. The first run of a kind compiles and is for warming up.
"""

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jdissect.runtime import resources

Task = dict[str, Any]
RUNS = ("jdissect", "forwards", "best", "faithful")


def jdissect(options) -> Callable[[Task], None]:
    """Whole runs of the command, from image files to run directories."""
    from jdissect.configs import mixup
    from jdissect.jobs import dissect
    from jdissect.runtime.machine import use_compilation_cache

    folder = Path(tempfile.mkdtemp())
    use_compilation_cache(folder)  # apart from label maps

    def run(task):
        with contextlib.ExitStack() as stack:
            cache = folder / "kept"
            if not task["cached"]:
                cache = stack.enter_context(tempfile.TemporaryDirectory())
            for _ in range(task["networks"]):
                workdir = stack.enter_context(tempfile.TemporaryDirectory())
                config = mixup.get_config("imagenet")
                config.model.weights = options["weights"]
                config.model.layers = tuple(task["layers"])
                config.segmenter.upernet = options["upernet"]
                config.segmenter.color = options["color"]
                config.segmenter.batch_size = 8
                config.data.source, config.data.path = "folder", options["images"]
                config.data.num_images = task["images"]
                config.data.batch_size = task["batch_size"]
                config.cache.dir = str(cache)
                config.dtype, config.report = options["dtype"], False
                dissect.dissect(config, f"{workdir}/run", tell=lambda _: None)

    return run


def forwards(options) -> Callable[[Task], None]:
    """The forward passes that jdissect makes, and nothing else: pixels in memory."""
    import jax
    import numpy as np

    from jdissect.checkpoints.networks import load_classifier, load_segmenter
    from jdissect.datasets.folder import open_folder
    from jdissect.jobs.batches import network_of
    from jdissect.ops.resample import pool
    from jdissect.runtime.devices import network_devices
    from jdissect.segmenters.parsing import SIDE, prepare_images

    devices, _ = network_devices("shard_map")
    dtype, grid = options["dtype"], (56, 56)
    model = load_classifier(options["weights"], dtype=dtype)
    upernet = load_segmenter(options["upernet"], "upernet", dtype=dtype)
    color = load_segmenter(options["color"], "ppm", dtype=dtype)

    def scores(params, pixels):
        def some(pixels):
            pixels = pixels.astype("float32")
            seen = [pool(pixels, side) / 255 for side in color.labels.segsizes]
            colors = [color.apply(params[1], images, size=grid) for images in seen]
            images = prepare_images(pixels, SIDE)
            return upernet.apply(params[0], images, size=grid), colors

        if jax.default_backend() != "cpu":
            return some(pixels)
        return jax.lax.map(lambda one: some(one[None]), pixels)  # as `Parser` does

    def on_devices(function):
        return devices.spmd(lambda state, pixels, params: function(params, pixels))

    params = devices.replicate((model.params, (upernet.params, color.params)))
    segment, networks = on_devices(scores), {}
    source = open_folder(options["images"])
    first = range(min(256, len(source.names)))
    images = np.stack([source.read(i).pixels for i in first])
    nothing = np.zeros(())

    def run(task):
        layers = tuple(task["layers"])
        if layers not in networks:
            networks[layers] = on_devices(network_of(model, layers, dtype))
        wanted = [(networks[layers], params[0], task["batch_size"])]
        wanted *= task["networks"]
        if not task["cached"]:
            wanted.append((segment, params[1], 8))
        for function, weights, size in wanted:
            size *= len(devices)
            if task["images"] % size:  # more would be computed than are counted
                raise SystemExit(
                    f"{task['images']} images are no whole steps of {size}"
                )
            for start in range(0, task["images"], size):
                some = np.arange(start, start + size) % len(images)
                batch = devices.scatter(images[some])
                found = function(devices.states(nothing), batch, weights)
            jax.block_until_ready(found)

    return run


def best(options) -> Callable[[Task], None]:
    """PyTorch as one would write it today; label maps are shared by networks."""
    return _torch(options, "best")


def faithful(options) -> Callable[[Task], None]:
    """PyTorch with the original's structure: everything again for every network."""
    return _torch(options, "faithful")


def _torch(options, form) -> Callable[[Task], None]:
    import torch

    from benchmarks.pytorch import netdissect as pipeline
    from benchmarks.pytorch.segmenter import TorchSegmenter

    torch.set_num_threads(resources.cores())
    quick = form == "best"
    dtype = options["dtype"] if quick else "float32"
    setting = (form, options["device"], dtype, quick and options["compile"])
    segmenter = TorchSegmenter(
        Path(options["published_upernet"]), Path(options["published_color"]), *setting
    )
    network = pipeline.load_resnet(Path(options["published_resnet"]))
    network = pipeline.Classifier(network, *setting)
    files = sorted(p for p in Path(options["images"]).rglob("*") if p.is_file())
    kept = []  # label maps of the first images

    def run(task):
        nonlocal kept
        names, layers = files[: task["images"]], task["layers"]
        if not quick:
            for _ in range(task["networks"]):
                for layer in layers:
                    images = pipeline.decode(names, form)
                    pipeline.faithful(network, images, segmenter, layer)
        else:
            labels = None
            if task["cached"] and len(kept) >= len(names):
                labels = kept[: len(names)]
            for _ in range(task["networks"]):
                images = pipeline.decode(names, form)
                if labels is None:
                    labels = kept = segmenter(images)
                concepts = segmenter.concepts
                pipeline.best(network, images, labels, concepts, layers)
        if options["device"] == "cuda":
            torch.cuda.synchronize()

    return run


def main(argv: list[str]) -> int:
    """Serves one pipeline until its input ends."""
    from jdissect.runtime import malloc

    options = json.loads(argv[2])
    malloc.keep_freed()
    run = globals()[argv[1]](options)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        run(json.loads(line))
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps([seconds, memory]), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
