"""From a config to a finished run directory: dissects one model."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_collections

from jdissect.base import paths
from jdissect.base.progress import EVERY, EVERY_REMOTE, Progress
from jdissect.checkpoints.networks import top1_error
from jdissect.data.source import Source
from jdissect.dissection import settings
from jdissect.jobs.job import Job
from jdissect.results import layer_result
from jdissect.runtime import consistency, preemption
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
      recounted: whether a run that was finished before had other IoU thresholds.
      skipped: {index of an image that could not be read: why}.
    """

    folder: Path
    layers: tuple[str, ...]
    source: Source
    results: Mapping[str, layer_result.Result] | None = None
    skipped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    recounted: bool = False


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
        return _dissect(config, workdir, overwrite, processes, progress, tell)


def _dissect(config, workdir, overwrite, processes, progress, tell) -> Done:
    start = time.perf_counter()
    with processes.agreeing(), progress.stage("opening images and network"):
        settings.check(config)
        job = Job(config)
        job.check_layout(processes)
    with progress.stage("hashing images"):
        hashes = job.hashes(processes)
    with processes.agreeing(), progress.stage("opening the segmenter"):
        finished = job.open_run(workdir, hashes).is_finished(overwrite)
    holds = [finished, job.run.place.name]
    layout = {**job.layout(overwrite), "what the workdir holds": holds}
    consistency.check_alike(processes, job.run.parts, layout)
    if finished:
        if processes.first:
            with contextlib.suppress(OSError):  # read-only, for one: it can be read
                job.run.settle()
        recounted = False
        with processes.agreeing():
            if processes.first:
                thresholds = config.iou_thresholds
                recounted = job.run.recount(config.to_dict(), thresholds)
        return Done(job.run.folder, job.layers, job.source, recounted=recounted)
    done = False
    try:
        with processes.agreeing():
            if processes.first:
                job.run.begin(config.to_dict(), job.layers)
        consistency.check_shared(processes, job.run.folder)
        journal = job.journal(processes, progress, overwrite, tell)
        with journal.terminable():
            with _telling(job, processes, progress), progress.stage("dissection"):
                found, seconds = job.dissect(journal, progress)
            skipped = {int(i): why for i, why in journal.notes["skipped"].items()}
            sent = sum(processes.gather(processes.sent))
            with processes.agreeing(), progress.stage("writing results"):
                if processes.first:
                    job.run.finish(
                        found=found,
                        names=job.source.names,
                        hashes=hashes,
                        skipped=skipped,
                        images=next(iter(found.values())).images,
                        seconds={
                            **seconds,
                            "total": round(time.perf_counter() - start, 3),
                        },
                        sent_bytes=sent,
                        top1_error=top1_error(config.model.weights),
                    )
            done = True
    except BaseException as error:
        if done:
            preemption.note(error, f"{workdir} is finished, but for its report.html")
        elif not (processes.first and job.run.abandon()):
            preemption.note(error)
        raise
    return Done(job.run.folder, job.layers, job.source, found, skipped)


def _telling(job, processes, progress) -> contextlib.AbstractContextManager:
    """Within it the run's summary says now and then how far it is."""
    if not processes.first:
        return contextlib.nullcontext()
    run, layers = job.run, job.layers
    every = EVERY_REMOTE if paths.is_remote(run.folder) else EVERY
    return progress.kept(lambda content: run.tell_progress(layers, content), every)
