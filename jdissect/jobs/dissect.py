"""Dissects one model, from a config to a finished run directory.

inputs = open_inputs(config)                    images, network, segmenter, devices
run = Run(workdir, identity_of(inputs))         the directory, if it may hold this
results = dissect_images(inputs, journal)       the passes, resumed if interrupted
run.finish(results)
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.progress import ImageBars, Progress
from jdissect.base.progress_log import EVERY, EVERY_REMOTE
from jdissect.checkpoints.networks import top1_error
from jdissect.data.source import Source, none_read
from jdissect.dissection.engine import Dissection, NoneRead, Settings
from jdissect.dissection.features import Shapes
from jdissect.dissection.resume import Journal
from jdissect.jobs import baselines
from jdissect.jobs.batches import (
    Reader,
    feature_bytes,
    feature_shapes,
    network_of,
)
from jdissect.jobs.inputs import Inputs, identity_of, open_inputs
from jdissect.results import group_counts
from jdissect.results.layer_result import Result
from jdissect.results.run_directory import Run
from jdissect.runtime import consistency, machine, preemption, resources
from jdissect.runtime.devices import in_32_bits
from jdissect.runtime.processes import ALONE, Processes


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished run.

    Attributes:
      folder: the run directory.
      layers: names of the layers.
      source: source of the images.
      results: {layer: result}; None if the run was already finished.
      skipped: {index of an unreadable image: reason}.
      recounted: whether an already finished run got other IoU thresholds.
    """

    folder: Path
    layers: tuple[str, ...]
    source: Source
    results: Mapping[str, Result] | None = None
    skipped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    recounted: bool = False


class Dissected(NamedTuple):
    """Result of the passes over the images.

    Attributes:
      results: results by layer.
      seconds: duration by stage. Label maps count for the pass that needs them.
    """

    results: dict[str, Result]
    seconds: dict[str, float]


@in_32_bits
def dissect(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> Done:
    """Dissects the config's model into `workdir`.

    A finished run of the same identity is only recounted if the config has other IoU
    thresholds; an unfinished one resumes from its last save.

    Args:
      config: the whole config.
      workdir: the run directory, the same for all processes.
      overwrite: whether to replace existing content; a finished run is replaced once
        the new one is complete.
      processes: the processes of the run; all of them call this.
      tell: prints a line when an unfinished run resumes.

    Raises:
      UserError: an input is invalid; no partial result is left.
      Terminated: SIGTERM arrived, and the state is saved.
    """
    with Progress(silent=not processes.first) as progress:
        start = time.perf_counter()
        inputs = open_inputs(config, processes, progress)
        run = Run(workdir, identity_of(inputs))
        with processes.agreeing():
            finished = run.is_finished(overwrite)
        layout = _layout(inputs, run, overwrite, finished)
        consistency.check_alike(processes, run.parts, layout)
        if finished:
            return _read_again(inputs, run, processes)
        return _make(inputs, run, overwrite, processes, progress, tell, start)


def _layout(inputs: Inputs, run: Run, overwrite: bool, finished: bool) -> dict:
    """Returns what must agree on all processes although it changes no number."""
    return {
        "--overwrite": overwrite,
        "checkpoint_every": inputs.config.checkpoint_every,
        "iou_thresholds": list(inputs.config.iou_thresholds),
        "kernels": inputs.config.kernels,
        "number of devices": len(inputs.devices),
        "workdir": os.fspath(run.folder),
        "what the workdir holds": [finished, run.place.name],
    }


def _read_again(inputs: Inputs, run: Run, processes: Processes) -> Done:
    """Returns a run that was already finished, at the config's IoU thresholds."""
    config, recounted = inputs.config, False
    with processes.agreeing():
        if processes.first:
            with contextlib.suppress(OSError):  # it may be read-only; reading suffices
                run.settle()
            recounted = run.recount(config.to_dict(), config.iou_thresholds)
    return Done(run.folder, inputs.layers, inputs.source, recounted=recounted)


def _make(inputs, run, overwrite, processes, progress, tell, start) -> Done:
    """Makes the run, resuming from its last save."""
    config, names, finished = inputs.config, inputs.source.names, False
    if processes.first and (line := advice(config.dtype, inputs.devices.platform)):
        tell(line)
    try:
        with processes.agreeing():
            if processes.first:
                run.begin(config.to_dict(), inputs.layers)
        consistency.check_shared(processes, run.folder)
        journal = _open_journal(inputs, run, overwrite, processes, progress, tell)
        with journal.terminable():
            with _telling(run, inputs.layers, processes, progress):
                found = dissect_images(inputs, journal, progress)
            skipped = _skipped(journal)
            sent = sum(processes.gather(processes.sent))
            with processes.agreeing(), progress.stage("writing results"):
                if processes.first:
                    total = round(time.perf_counter() - start, 3)
                    run.finish(
                        found=found.results,
                        names=names,
                        hashes=inputs.hashes,
                        skipped=skipped,
                        images=next(iter(found.results.values())).images,
                        seconds={**found.seconds, "total": total},
                        sent_bytes=sent,
                        top1_error=_error(config),
                    )
            finished = True
    except BaseException as error:
        if finished:
            preemption.add_hint(
                error, f"{run.folder} is finished, without its report.html"
            )
        elif not (processes.first and run.abandon()):
            preemption.add_hint(error)
        raise
    return Done(run.folder, inputs.layers, inputs.source, found.results, skipped)


def _error(config: ml_collections.ConfigDict) -> float | None:
    """Returns the top-1 error in percent of the network, if it is known."""
    if baselines.of(config) == baselines.UNTRAINED:
        return None
    return top1_error(config.model.weights)


def advice(dtype: str, platform: str) -> str:
    """Returns what to know about the type of the network; '' for nothing.

    float32 stays the default everywhere, so that a config means one result.
    """
    if platform == "cpu" or dtype != "float32":
        return ""
    return (
        "the network runs in float32; --config.dtype=bfloat16 takes a fraction of the "
        "time here and changes about one detector in a hundred\n"
    )


def _open_journal(inputs, run, overwrite, processes, progress, tell) -> Journal:
    """Opens the run's journal and restores its saved state.

    With `overwrite`, an unreadable state makes the run start over.
    """
    journal = Journal(
        run.checkpoints,
        processes,
        inputs.config.checkpoint_every,
        inputs.images_a_step * processes.count,
        len(inputs.source.names),
    )
    resumed, unreadable = "", False
    with processes.agreeing(), progress.stage("last save"):
        try:
            resumed = journal.restore()
        except UserError:
            if not overwrite:
                raise
            unreadable = True
    if unreadable and processes.first:
        paths.remove_folder(run.checkpoints)
    if resumed and processes.first:
        tell(f"resuming this run from its last save, {resumed}\n")
    return journal


def _telling(run, layers, processes, progress) -> contextlib.AbstractContextManager:
    """Returns a context that regularly writes the progress to the run's summary."""
    stack = contextlib.ExitStack()
    if processes.first:
        every = EVERY_REMOTE if paths.is_remote(run.folder) else EVERY
        recorded = progress.recorded(
            lambda content: run.tell_progress(layers, content), every
        )
        stack.enter_context(recorded)
    stack.enter_context(progress.stage("dissection"))
    return stack


def _skipped(journal: Journal) -> dict[int, str]:
    return {int(index): why for index, why in journal.notes["skipped"].items()}


def dissect_images(inputs: Inputs, journal: Journal, progress: Progress) -> Dissected:
    """Runs the passes over all images, resuming from the journal.

    Raises:
      UserError: no image can be read, or an activation is not finite.
    """
    config, source, processes = inputs.config, inputs.source, journal.processes
    count = len(source.names)
    reader = Reader(
        source, inputs.segmenter, config, len(inputs.devices), processes, progress
    )
    network = network_of(inputs.model, inputs.layers, config.dtype)
    maps = feature_shapes(
        network, inputs.model.params, source.image_shape, inputs.model.latent
    )
    spill = inputs.cache and inputs.cache / "features"
    keep = machine.keep_features(
        config.cache.features,
        feature_bytes(maps),
        -(-count // processes.count),
        spill,
        resources.sharing(processes),
        machine.free_on(inputs.counters.devices),
    )
    dissection = Dissection(
        network,
        inputs.model.params,
        inputs.segmenter.concepts,
        Settings(
            layers=inputs.layers,
            quantile=config.quantile,
            topk=min(config.topk, count),
            keep=keep,
            folder=spill,
            unit_parts=config.mesh.unit,
            kernels=config.kernels,
            views=inputs.views,
        ),
        inputs.devices,
        inputs.counters,
        ImageBars(progress, count, processes.count),
        journal,
        Shapes.of(maps, inputs.segmenter.mask_shape),
    )
    blocks = group_counts.blocks_of(source.names)
    try:
        found = dissection.run(reader.read, count, blocks)
    except NoneRead:
        skipped = sorted(_skipped(journal).items())
        raise none_read(
            [(source.names[index], why) for index, why in skipped]
        ) from None
    about: dict[str, Any] = {
        "model": config.model.name,
        "iou_thresholds": tuple(config.iou_thresholds),
    }
    return Dissected(
        {layer: result.replace(**about) for layer, result in found.items()},
        {"segmenter": round(reader.seconds, 3), **dissection.seconds},
    )
