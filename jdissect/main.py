"""Dissects one model: python -m jdissect.main --config=configs/mixup.py"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.runtime import command_line

    flags = command_line.define(
        argv,
        {
            "workdir": "Run directory; default runs/NAME[-VARIANT] of the config, with "
            "-BASELINE behind it for a baseline.",
            **command_line.PROCESSES,
        },
        {"overwrite": "Replace the run in --workdir, once the new one is complete."},
    )
    config = command_line.parse(flags, argv)
    processes = command_line.join(flags)
    from jdissect.report import run_summary

    baseline = config.model.baseline and f"-{config.model.baseline}"
    workdir = flags.workdir or f"runs/{command_line.run_name(flags)}{baseline}"
    return run_summary.dissect(config, workdir, flags.overwrite, processes)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
