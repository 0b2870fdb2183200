"""Rewrites report.html of finished runs: python -m jdissect.page RUN [RUN ...]

A dissection writes the page at its end. Rewrite it to show what `jdissect.compose`,
`chance`, `verify` or `scores` have found since, if images have become available again,
or if a newer version makes better pages.
"""

import sys
import time
from collections.abc import Sequence

_USAGE = "jdissect.page RUN [RUN ...] [--data_path=DIR]"


def main(argv: Sequence[str]) -> int:
    """Parses the command line and writes; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.base.errors import UserError
    from jdissect.runtime import plain_flags

    options = {"data_path": plain_flags.DATA_PATH}
    flags, folders, _ = plain_flags.parse(argv, _USAGE, options)
    if not folders:
        raise UserError(f"give one or more run directories: python -m {_USAGE}")
    from jdissect.analysis import uncertainty
    from jdissect.report.pages.page import write_report
    from jdissect.results.finished_run import open_run

    # All runs are opened first, so that a wrong name is reported at once.
    for run in [open_run(folder) for folder in folders]:
        start = time.perf_counter()
        known = {name: uncertainty.estimates(run.result(name)) for name in run.layers}
        path = write_report(run, known, data_path=flags.data_path)
        print(f"{path}, {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
