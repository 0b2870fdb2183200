"""From a config to a run directory: dissects one model."""

import functools
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from jdissect import checkpoints, environment, shipped
from jdissect.data import loader, open_source
from jdissect.dissection import Dissection, Settings
from jdissect.errors import UserError
from jdissect.features import Images
from jdissect.models.preprocess import normalize
from jdissect.parallel import MODES, network_devices
from jdissect.progress import bars
from jdissect.report.table import layer_report
from jdissect.results import load
from jdissect.segmenters import open_segmenter, smallest_image
from jdissect.store import Run, identity

DTYPES = ("float32", "bfloat16")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses values that no run could have.

    Raises:
      UserError: naming key and value.
    """

    def must(condition: bool, key: str, value: Any, what: str) -> None:
        if not condition:
            raise UserError(f"config.{key} is {value!r}; it must be {what}")

    data, segmenter = config.data, config.segmenter
    must(data.batch_size >= 1, "data.batch_size", data.batch_size, "at least 1")
    must(data.workers >= 0, "data.workers", data.workers, "0 or more")
    must(data.num_images >= 0, "data.num_images", data.num_images, "0 (all) or more")
    must(
        segmenter.batch_size >= 1,
        "segmenter.batch_size",
        segmenter.batch_size,
        "at least 1",
    )
    must(0 < config.quantile < 1, "quantile", config.quantile, "between 0 and 1")
    must(config.mask_size >= 0, "mask_size", config.mask_size, "0 or a side in pixels")
    must(config.topk >= 1, "topk", config.topk, "at least 1")
    must(len(config.model.layers) > 0, "model.layers", (), "one layer or more")
    must(
        len(set(config.model.layers)) == len(config.model.layers),
        "model.layers",
        tuple(config.model.layers),
        "free of repetitions",
    )
    thresholds = tuple(config.iou_thresholds)
    must(
        len(thresholds) > 0 and all(0 <= t < 1 for t in thresholds),
        "iou_thresholds",
        thresholds,
        "one number or more in [0, 1)",
    )
    must(config.dtype in DTYPES, "dtype", config.dtype, " or ".join(DTYPES))
    must(config.parallel in MODES, "parallel", config.parallel, " or ".join(MODES))
    must(config.cache.max_gb >= 0, "cache.max_gb", config.cache.max_gb, "0 or more")
    keep = environment.FEATURES
    must(
        config.cache.features in keep,
        "cache.features",
        config.cache.features,
        ", ".join(keep),
    )


def dissect(
    config: ml_collections.ConfigDict, workdir: str, overwrite: bool = False
) -> None:
    """Dissects the config's model into `workdir` and prints what was found.

    A finished run of the same identity is printed again instead.

    Raises:
      UserError: something given is wrong; nothing half-written is left.
    """
    start = time.perf_counter()
    check(config)
    devices, counters = network_devices(config.parallel)
    cache_dir = environment.cache_dir(config.cache.dir)
    environment.use_compilation_cache(cache_dir)
    source = open_source(config.data, smallest_image(config.segmenter.name))
    if not config.model.weights:
        raise UserError(
            "config.model.weights is not set; convert a checkpoint (python -m "
            "converters.resnet --help) and give its folder"
        )
    model = checkpoints.load_classifier(
        config.model.weights, config.model.name, dtype=config.dtype
    )
    layers = tuple(config.model.layers)
    for layer in layers:
        if layer not in model.endpoint_names:
            raise UserError(
                f"{config.model.name} has no layer '{layer}'; it has "
                f"{', '.join(model.endpoint_names)}"
            )
    hashes = source.content_hashes(cache_dir)
    segmenter = open_segmenter(config, source, hashes, devices, cache_dir)
    run = Run(workdir, _identity(config, source, hashes, model, segmenter, cache_dir))
    if run.is_finished(overwrite):
        print(f"{workdir} is finished; this is what it holds (--overwrite runs anew)\n")
        _print_stored(run.folder, layers)
        return
    count = len(source.names)
    try:
        run.begin(config.to_dict(), layers)
        reader = _Reader(source, segmenter, config, len(devices))
        network = _network(model, layers, config.dtype)
        dissection = Dissection(
            network,
            model.params,
            segmenter.concepts,
            Settings(
                layers=layers,
                quantile=config.quantile,
                topk=config.topk,
                keep=environment.keep_features(
                    config.cache.features, _feature_bytes(network, model, source), count
                ),
            ),
            devices,
            counters,
            bars(count),
        )
        found = dissection.run(reader.read, count)
        found = {
            layer: result.replace(
                model=config.model.name, iou_thresholds=tuple(config.iou_thresholds)
            )
            for layer, result in found.items()
        }
    except BaseException:
        run.abandon()
        raise
    run.finish(
        found=found,
        names=source.names,
        skipped=reader.skipped,
        images=next(iter(found.values())).images,
        seconds={
            # Part of the pass that asked for the label maps, the first or the last.
            "segmenter": round(reader.seconds, 3),
            **dissection.seconds,
            "total": round(time.perf_counter() - start, 3),
        },
    )
    if reader.skipped:
        index, reason = next(iter(reader.skipped.items()))
        print(
            f"skipped {len(reader.skipped)} of {count} images that could not be read, "
            f"such as {source.names[index]}: {reason}\n"
        )
    for result in found.values():
        print(layer_report(result))
    print(f"written to {workdir}")


def top1_error(weights: str) -> float | None:
    """In percent, of a network that was trained here, as measured then; else None."""
    if weights.startswith(shipped.PREFIX):
        return shipped.entry(weights)["scores"]["top1_error"]
    return checkpoints.read_description(weights)["source"].get("top1_error")


def _network(model, layers, dtype):
    def apply(params, pixels):
        images = normalize(pixels, model.preprocessing, dtype)
        return model.apply(params, images, layers)[1]

    return apply


def _feature_bytes(network, model, source) -> int:
    """Of one image, all layers."""
    pixels = jax.ShapeDtypeStruct((1, *source.image_shape, 3), np.uint8)
    maps = jax.eval_shape(network, model.params, pixels)
    return sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(maps))


class _Reader:
    """Batches of a source with their label maps, as the passes want them."""

    def __init__(self, source, segmenter, config, devices: int):
        self._source, self._segmenter = source, segmenter
        self._config, self._size = config.data, config.data.batch_size * devices
        self.skipped: dict[int, str] = {}
        self.seconds = 0.0  # spent on label maps

    def read(self, indices=None):
        source = self._source if indices is None else _Some(self._source, indices)
        for batch in loader.batches(
            source,
            self._size,
            workers=self._config.workers,
            strict=self._config.strict,
        ):
            index = batch.index
            if indices is not None:
                index = np.where(index >= 0, np.asarray(indices)[index], -1)
            else:
                self.skipped |= dict(batch.skipped)
            yield Images(
                index=index,
                valid=batch.valid,
                pixels=batch.pixels,
                labels=functools.partial(self._labels, batch),
                annotated=self._segmenter.annotated(batch),
            )

    def _labels(self, batch):
        start = time.perf_counter()
        maps = self._segmenter.label_maps(batch)
        self.seconds += time.perf_counter() - start
        return maps


class _Some:
    """Some images of a source, as a source."""

    def __init__(self, source, indices):
        self._source, self._indices = source, list(indices)
        self.names = tuple(source.names[index] for index in self._indices)
        self.image_shape, self.annotations = source.image_shape, source.annotations

    def read(self, index):
        return self._source.read(self._indices[index])


def _identity(config, source, hashes, model, segmenter, cache_dir: Path | None):
    return identity(
        images=list(zip(source.names, hashes, strict=True)),
        model={
            "architecture": model.architecture,
            "preprocessing": model.preprocessing.to_json(),
            "weights": model.weights_sha256,
        },
        segmenter=segmenter.identity(cache_dir),
        keys={
            "model.name": config.model.name,
            "model.layers": list(config.model.layers),
            "data.source": config.data.source,
            "data.batch_size": config.data.batch_size,
            "segmenter.name": config.segmenter.name,
            "segmenter.batch_size": config.segmenter.batch_size,
            "segmenter.quarters": config.segmenter.quarters,
            "quantile": config.quantile,
            "iou_thresholds": list(config.iou_thresholds),
            "mask_size": config.mask_size,
            "dtype": config.dtype,
            "topk": config.topk,
        },
    )


def _print_stored(folder: Path, layers) -> None:
    for layer in layers:
        print(layer_report(load(folder / layer)))
    print(f"stored in {folder}")
