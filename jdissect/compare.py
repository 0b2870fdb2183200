"""Compares dissections: python -m jdissect.compare RUN RUN ... --output=DIR

Reports unique concepts by category and IoU threshold (the study's Figure 3), with
intervals; differences to the first run; concepts gained and lost between any two runs.
If all runs have them, also formulas, counts by chance and verified labels.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

_OPTIONS = {
    "output": ("", "Folder for figures, tables and report.html."),
    "layers": ([], "Layers to compare; by default all of each run."),
    "names": ([], "Names of the runs; by default those of their folders."),
    "top1_errors": ([], "Top-1 errors of the networks in percent, e.g. 23.7,-,22.9."),
    "thresholds": ([], "IoU thresholds; by default those of the first run."),
    "force": (False, "Compare what different runs have in common."),
    "report": (True, "Write report.html."),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and compares; returns the exit code."""
    from jdissect.base.errors import UserError
    from jdissect.runtime import plain_flags

    usage = "jdissect.compare RUN [RUN ...] --output=DIR [FLAG ...]"
    options = {**_OPTIONS, "data_path": plain_flags.DATA_PATH}
    flags, folders, _ = plain_flags.parse(argv, usage, options)
    if not folders:
        raise UserError(f"give one or more run directories: python -m {usage}")
    if not flags.output:
        raise UserError("--output is not set; give a folder for figures and tables")
    if Path(flags.output).is_file():
        raise UserError(f"{flags.output} is a file; give another --output")
    errors = [_error(text) for text in flags.top1_errors]
    thresholds = tuple(_threshold(text) for text in flags.thresholds)
    from jdissect.analysis import comparison
    from jdissect.results.finished_run import open_run

    start = time.perf_counter()
    compared = comparison.compare(
        [open_run(folder) for folder in folders],
        layers=flags.layers,
        names=flags.names,
        errors=errors,
        thresholds=thresholds,
        force=flags.force,
    )
    show(compared, flags.output, flags.report, flags.data_path)
    print(f"\nwritten to {flags.output}, {time.perf_counter() - start:.1f} s")
    return 0


def show(compared, output: str, report: bool = True, data_path: str = "") -> None:
    """Writes figures, tables and the page, and prints the results.

    An existing comparison stays until the new one is complete (see `replacing`).
    """
    from jdissect.base import paths, replacing
    from jdissect.report import compared_findings, comparison_files
    from jdissect.report.tables import comparison as tables

    known = compared_findings.read(compared)
    folder = paths.from_user(output)
    with replacing.content_of(
        folder, comparison_files.MARK, comparison_files.OWN
    ) as place:
        figures = comparison_files.write(compared, place, known)
        if report:
            from jdissect.report.pages import comparison_page

            comparison_page.write_of(
                compared, place, figures, data_path, folder.name, known
            )
    print(tables.comparison_table(compared))
    if len(compared.models) > 1:
        print(f"\n{tables.differences_table(compared)}")
    if known.kinds:
        print(f"\n{tables.findings_table(compared, known)}")
    for note in filter(None, (*compared.notes, known.note)):
        print(f"\n{note}")


def _error(text: str) -> float | None:
    from jdissect.base.errors import UserError

    if text in ("", "-"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UserError(f"--top1_errors has '{text}'; give percent, or - if not known")
    return value


def _threshold(text: str) -> float:
    from jdissect.base.errors import UserError

    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"--thresholds has '{text}'; give numbers in [0, 1)")
    return value


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
