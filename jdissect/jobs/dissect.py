"""From a config to a run directory: dissects one model."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_collections

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.progress import EVERY, EVERY_REMOTE, Progress
from jdissect.checkpoints.networks import top1_error
from jdissect.data.source import skipped_line
from jdissect.dissection.settings import check
from jdissect.jobs.job import Job
from jdissect.report.tables.layer import layer_report
from jdissect.results import load_layer
from jdissect.results.finished_run import open_run
from jdissect.runtime import consistency, preemption
from jdissect.runtime.devices import in_32_bits
from jdissect.runtime.processes import ALONE, Processes


@in_32_bits
def dissect(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> int:
    """Dissects the config's model into `workdir` and tells what was found.

    A finished run of the same identity is told again instead; an unfinished one
    goes on from where it was last saved.

    Args:
      config: the whole of it.
      workdir: the run directory, the same for all processes.
      overwrite: replace what is there: a finished run when the new one is whole.
      processes: that share the work; all of them call this.
      tell: takes lines for a person.

    Returns:
      exit code: 0.

    Raises:
      UserError: something given is wrong; nothing half-written is left.
      Terminated: SIGTERM has come, and the state is saved.
    """
    with Progress(silent=not processes.first) as progress:
        return _dissect(config, workdir, overwrite, processes, progress, tell)


def _dissect(config, workdir, overwrite, processes, progress, tell) -> int:
    start = time.perf_counter()
    with processes.agreeing(), progress.stage("opening images and network"):
        check(config)
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
            tell(f"{workdir} is finished and holds (--overwrite runs anew):\n")
            _tell_stored(tell, job.run.folder, job.layers)
        return 0
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
        with processes.agreeing():
            if processes.first and config.report:
                with progress.stage("report"):
                    _write_report(job)
    except BaseException as error:
        if done:
            preemption.note(error, f"{workdir} is finished, but for its report.html")
        elif not (processes.first and job.run.abandon()):
            preemption.note(error)
        raise
    if processes.first:
        _tell(tell, found, skipped, job.source.names)
        tell(f"written to {workdir}")
    return 0


def _telling(job, processes, progress) -> contextlib.AbstractContextManager:
    """Within it the run's summary says now and then how far it is."""
    if not processes.first:
        return contextlib.nullcontext()
    run, layers = job.run, job.layers
    every = EVERY_REMOTE if paths.is_remote(run.folder) else EVERY
    return progress.kept(lambda content: run.tell_progress(layers, content), every)


def _write_report(job: Job) -> None:
    """The page of the finished run; the run is whole without it."""
    from jdissect.analysis import uncertainty
    from jdissect.report.pages.page import write_report

    try:
        run = open_run(job.run.folder)
        known = {name: uncertainty.estimates(run.result(name)) for name in run.layers}
        write_report(run, known, job.source)
    except (OSError, UserError) as error:
        print(f"report.html was not written: {error}", file=sys.stderr)


def _tell(tell, found, skipped, names) -> None:
    if skipped:
        named = [(names[index], why) for index, why in sorted(skipped.items())]
        tell(f"{skipped_line(named, len(names))}\n")
    for result in found.values():
        tell(layer_report(result))


def _tell_stored(tell, folder: Path, layers) -> None:
    for layer in layers:
        tell(layer_report(load_layer.load(folder / layer)))
    tell(f"stored in {folder}")
