"""From a config to a finished run directory: dissects one model.

inputs = open_inputs(config)                    images, network, segmenter, devices
run = Run(workdir, identity_of(inputs))         the directory, if it may hold this
results = dissect_images(inputs, journal)       the passes, resumed where they were
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
      source: of the images.
      results: {layer: its result}; None where the run was finished before.
      skipped: {index of an image that could not be read: why}.
      recounted: whether a run that was finished before had other IoU thresholds.
    """

    folder: Path
    layers: tuple[str, ...]
    source: Source
    results: Mapping[str, Result] | None = None
    skipped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    recounted: bool = False


class Dissected(NamedTuple):
    """What the passes over the images gave.

    Attributes:
      results: by layer.
      seconds: by stage. Label maps are part of the pass that asked for them.
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

    A finished run of the same identity is only counted anew where the config has other
    IoU thresholds; an unfinished one resumes from where it was last saved.

    Args:
      config: the whole of it.
      workdir: the run directory, the same for all processes.
      overwrite: replace what is there: a finished run when the new one is whole.
      processes: that share the work; all of them call this.
      tell: takes a line for a person where an unfinished run resumes.

    Raises:
      UserError: something given is wrong; nothing half-written is left.
      Terminated: SIGTERM has come, and the state is saved.
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
    """What must be the same on all processes, though it changes no number."""
    return {
        "--overwrite": overwrite,
        "checkpoint_every": inputs.config.checkpoint_every,
        "iou_thresholds": list(inputs.config.iou_thresholds),
        "number of devices": len(inputs.devices),
        "workdir": os.fspath(run.folder),
        "what the workdir holds": [finished, run.place.name],
    }


def _read_again(inputs: Inputs, run: Run, processes: Processes) -> Done:
    """A run that was finished before, at the IoU thresholds of the config."""
    config, recounted = inputs.config, False
    with processes.agreeing():
        if processes.first:
            with contextlib.suppress(OSError):  # read-only, for one: it can be read
                run.settle()
            recounted = run.recount(config.to_dict(), config.iou_thresholds)
    return Done(run.folder, inputs.layers, inputs.source, recounted=recounted)


def _make(inputs, run, overwrite, processes, progress, tell, start) -> Done:
    """Makes the run, from where it was last saved."""
    config, names, finished = inputs.config, inputs.source.names, False
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
                        top1_error=top1_error(config.model.weights),
                    )
            finished = True
    except BaseException as error:
        if finished:
            preemption.note(error, f"{run.folder} is finished, but for its report.html")
        elif not (processes.first and run.abandon()):
            preemption.note(error)
        raise
    return Done(run.folder, inputs.layers, inputs.source, found.results, skipped)


def _open_journal(inputs, run, overwrite, processes, progress, tell) -> Journal:
    """The state of the run, with what is saved of it.

    With `overwrite` the run begins anew where what is saved cannot be read.
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
        tell(f"going on where this run was last saved, {resumed}\n")
    return journal


def _telling(run, layers, processes, progress) -> contextlib.AbstractContextManager:
    """Within it the run's summary says now and then how far it is."""
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
    """Runs the passes over all images, from where the journal is.

    Raises:
      UserError: no image can be read, or an activation is not finite.
    """
    config, source, processes = inputs.config, inputs.source, journal.processes
    count = len(source.names)
    reader = Reader(
        source, inputs.segmenter, config, len(inputs.devices), processes, progress
    )
    network = network_of(inputs.model, inputs.layers, config.dtype)
    maps = feature_shapes(network, inputs.model.params, source.image_shape)
    spill = inputs.cache and inputs.cache / "features"
    keep = machine.keep_features(
        config.cache.features,
        feature_bytes(maps),
        -(-count // processes.count),
        spill,
        resources.sharing(processes),
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
