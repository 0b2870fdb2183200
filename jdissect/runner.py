"""From a config to a run directory: dissects one model."""

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from jdissect import (
    checkpoints,
    environment,
    results,
    shipped,
    termination,
    together,
)
from jdissect.data import loader, open_source
from jdissect.data.source import Subset, share
from jdissect.dissection import Dissection, Settings
from jdissect.errors import UserError
from jdissect.features import Images
from jdissect.journal import Journal
from jdissect.models.preprocess import normalize
from jdissect.parallel import MODES, network_devices
from jdissect.processes import ALONE, Processes
from jdissect.progress import bars
from jdissect.report.table import layer_report
from jdissect.segmenters import open_segmenter, smallest_image
from jdissect.store import Run, identity
from jdissect.termination import Terminated

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
    must(
        config.checkpoint_every >= 0,
        "checkpoint_every",
        config.checkpoint_every,
        "0 (about a minute) or a number of steps",
    )
    must(config.mesh.unit >= 1, "mesh.unit", config.mesh.unit, "at least 1")
    must(config.cache.max_gb >= 0, "cache.max_gb", config.cache.max_gb, "0 or more")
    keep = environment.FEATURES
    must(
        config.cache.features in keep,
        "cache.features",
        config.cache.features,
        ", ".join(keep),
    )


def dissect(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
) -> int:
    """Dissects the config's model into `workdir` and prints what was found.

    A finished run of the same identity is printed again instead; an unfinished one
    goes on from where it was last saved.

    Args:
      config: the whole of it.
      workdir: the run directory, the same for all processes.
      overwrite: begin anew, whatever is there.
      processes: that share the work; all of them call this.

    Returns:
      exit code: 0, or 143 where SIGTERM ended it, with the state saved.

    Raises:
      UserError: something given is wrong; nothing half-written is left.
    """
    start = time.perf_counter()
    with processes.agreeing():
        job = _Job(config, workdir)
        finished = job.run.is_finished(overwrite)
        job.check_layout(processes)
    layout = {**job.layout(overwrite), "what the workdir holds": finished}
    together.check_alike(processes, job.run.parts, layout)
    if finished:
        if processes.first:
            print(f"{workdir} is finished and holds (--overwrite runs anew):\n")
            _print_stored(job.run.folder, job.layers)
        return 0
    try:
        with processes.agreeing():
            if processes.first:
                job.run.begin(config.to_dict(), job.layers, overwrite)
        together.check_shared(processes, job.run.folder)
        journal = job.journal(processes)
        with journal.terminable():
            found, seconds = job.dissect(journal)
            skipped = {int(i): why for i, why in journal.notes["skipped"].items()}
            sent = sum(processes.gather(processes.sent))
            with processes.agreeing():
                if processes.first:
                    job.run.finish(
                        found=found,
                        names=job.source.names,
                        skipped=skipped,
                        images=next(iter(found.values())).images,
                        seconds={
                            **seconds,
                            "total": round(time.perf_counter() - start, 3),
                        },
                        sent_bytes=sent,
                    )
    except Terminated:
        return termination.EXIT_CODE
    except BaseException:
        if processes.first:
            job.run.abandon()
        raise
    if processes.first:
        _tell(found, skipped, job.source.names)
        print(f"written to {workdir}")
    return 0


class _Job:
    """What a config asks for, opened.

    Raises:
      UserError: something given is wrong.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        check(config)
        self._config = config
        self._devices, self._counters = network_devices(config.parallel)
        cache_dir = environment.cache_dir(config.cache.dir)
        environment.use_compilation_cache(cache_dir)
        self._spill = cache_dir and cache_dir / "features"
        source = open_source(config.data, smallest_image(config.segmenter.name))
        if not config.model.weights:
            raise UserError(
                "config.model.weights is not set; convert a checkpoint (python -m "
                "converters.resnet --help) and give its folder"
            )
        model = checkpoints.load_classifier(
            config.model.weights, config.model.name, dtype=config.dtype
        )
        self.layers = tuple(config.model.layers)
        for layer in self.layers:
            if layer not in model.endpoint_names:
                raise UserError(
                    f"{config.model.name} has no layer '{layer}'; it has "
                    f"{', '.join(model.endpoint_names)}"
                )
        hashes = source.content_hashes(cache_dir)
        segmenter = open_segmenter(config, source, hashes, self._devices, cache_dir)
        parts = _identity(config, source, hashes, model, segmenter, cache_dir)
        self.run = Run(workdir, parts)
        self.source, self._model, self._segmenter = source, model, segmenter

    def layout(self, overwrite: bool) -> dict[str, Any]:
        """What must be the same on all processes, though it changes no number."""
        return {
            "--overwrite": overwrite,
            "checkpoint_every": self._config.checkpoint_every,
            "number of devices": len(self._devices),
            "workdir": os.fspath(self.run.folder),
        }

    def check_layout(self, processes: Processes) -> None:
        """Refuses what cannot be shared out.

        Raises:
          UserError: more processes than images; a mesh that the devices do not fit.
        """
        images, parts = len(self.source.names), self._config.mesh.unit
        if processes.count > images:
            raise UserError(
                f"{processes.count} processes are more than the {images} images"
            )
        if len(self._counters) % parts:
            raise UserError(
                f"config.mesh.unit is {parts}; it must divide the "
                f"{len(self._counters)} devices of a process"
            )

    def journal(self, processes: Processes) -> Journal:
        """That of the run, with what is saved of it."""
        config = self._config
        size = config.data.batch_size * len(self._devices)
        journal = Journal(
            self.run.checkpoints,
            processes,
            config.checkpoint_every,
            size * processes.count,
        )
        with processes.agreeing():
            going_on = journal.restore()
        if going_on and processes.first:
            print(f"going on where this run was last saved, {going_on}\n")
        return journal

    def dissect(
        self, journal: Journal
    ) -> tuple[dict[str, results.Result], dict[str, float]]:
        """All layers' results, and seconds by stage."""
        config, processes = self._config, journal.processes
        count = len(self.source.names)
        mine = -(-count // processes.count)
        reader = _Reader(
            self.source, self._segmenter, config, len(self._devices), processes
        )
        network = _network(self._model, self.layers, config.dtype)
        size = _feature_bytes(network, self._model, self.source)
        dissection = Dissection(
            network,
            self._model.params,
            self._segmenter.concepts,
            Settings(
                layers=self.layers,
                quantile=config.quantile,
                topk=config.topk,
                keep=environment.keep_features(
                    config.cache.features, size, mine, self._spill
                ),
                folder=self._spill,
                unit_parts=config.mesh.unit,
            ),
            self._devices,
            self._counters,
            bars(mine, silent=not processes.first),
            journal,
        )
        found = {
            layer: result.replace(
                model=config.model.name, iou_thresholds=tuple(config.iou_thresholds)
            )
            for layer, result in dissection.run(reader.read, count).items()
        }
        # Label maps: part of the pass that asked for them, the first or the last.
        return found, {"segmenter": round(reader.seconds, 3), **dissection.seconds}


def _tell(found, skipped, names) -> None:
    if skipped:
        index, reason = next(iter(skipped.items()))
        print(
            f"skipped {len(skipped)} of {len(names)} images that could not be read, "
            f"such as {names[index]}: {reason}\n"
        )
    for result in found.values():
        print(layer_report(result))


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
    """This process's batches of a source with their label maps; see `features.Read`."""

    def __init__(self, source, segmenter, config, devices: int, processes: Processes):
        self._source, self._segmenter = source, segmenter
        self._config, self._size = config.data, config.data.batch_size * devices
        self._processes = processes
        self.seconds = 0.0  # spent on label maps

    def read(self, indices=None, start=0, stop=None):
        if indices is None:
            indices = range(start, len(self._source.names) if stop is None else stop)
        mine, steps = share(
            indices, self._size, self._processes.index, self._processes.count
        )
        for batch in loader.batches(
            Subset(self._source, mine),
            self._size,
            workers=self._config.workers,
            strict=self._config.strict,
            at_least=steps,
        ):
            here = batch.index >= 0
            index = np.full(self._size, -1, np.int64)
            index[here] = mine[batch.index[here]]
            batch = dataclasses.replace(batch, index=index.astype(np.int32))
            yield Images(
                index=batch.index,
                valid=batch.valid,
                pixels=batch.pixels,
                labels=functools.partial(self._labels, batch),
                annotated=self._segmenter.annotated(batch),
                skipped=tuple((int(mine[i]), why) for i, why in batch.skipped),
            )

    def _labels(self, batch):
        start = time.perf_counter()
        maps = self._segmenter.label_maps(batch)
        self.seconds += time.perf_counter() - start
        return maps


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
        print(layer_report(results.load(folder / layer)))
    print(f"stored in {folder}")
