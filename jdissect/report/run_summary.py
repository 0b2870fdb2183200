"""Dissects a network, prints tables of the results, and writes the run's page."""

import sys
from collections.abc import Callable
from typing import Any

import ml_collections

from jdissect.analysis import uncertainty
from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.data.source import skipped_line
from jdissect.jobs import dissect as jobs
from jdissect.report.pages.page import write_report
from jdissect.report.tables.layer import layer_report
from jdissect.results import load_layer
from jdissect.results.finished_run import open_run
from jdissect.runtime import preemption
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
    """Dissects the config's model into `workdir` and prints the results.

    Args:
      config, workdir, overwrite, processes: see `jobs.dissect.dissect`.
      tell: prints lines for the user.

    Returns:
      exit code: 0.

    Raises:
      UserError: an input is invalid; no partial result is left.
      Terminated: SIGTERM arrived, and the state is saved.
    """
    done = jobs.dissect(config, workdir, overwrite, processes, tell)
    if done.results is None:
        if processes.first:
            if done.recounted and config.report:
                _write_page(done)
            tell(f"{workdir} is finished (--overwrite runs it again):\n")
            for layer in done.layers:
                tell(layer_report(load_layer.load(done.folder / layer)))
            tell(f"stored in {done.folder}")
        return 0
    try:
        with processes.agreeing():
            if processes.first and config.report:
                with Progress() as progress, progress.stage("report"):
                    _write_page(done)
    except BaseException as error:
        preemption.add_hint(error, f"{workdir} is finished, without its report.html")
        raise
    if processes.first:
        _tell_results(tell, done)
        tell(f"written to {workdir}")
    return 0


def _write_page(done: jobs.Done) -> None:
    """Writes the page of a finished run, which is complete without it."""
    try:
        run = open_run(done.folder)
        known = {name: uncertainty.estimates(run.result(name)) for name in run.layers}
        write_report(run, known, done.source)
    except (OSError, UserError) as error:
        print(f"report.html was not written: {error}", file=sys.stderr)


def _tell_results(tell: Callable[[str], Any], done: jobs.Done) -> None:
    names = done.source.names
    if done.skipped:
        named = [(names[index], why) for index, why in sorted(done.skipped.items())]
        tell(f"{skipped_line(named, len(names))}\n")
    assert done.results is not None  # of the first process
    for result in done.results.values():
        tell(layer_report(result))
