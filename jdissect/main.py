"""Dissects one model: python -m jdissect.main --config=configs/mixup.py"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli

    flags = cli.define(
        argv,
        {
            "workdir": "Run directory; default runs/NAME[-VARIANT] of the config.",
            **cli.PROCESSES,
        },
        {"overwrite": "Replace the run in --workdir, once the new one is whole."},
    )
    config = cli.parse(flags, argv)
    processes = cli.join(flags)
    from jdissect import runner

    workdir = flags.workdir or f"runs/{cli.run_name(flags)}"
    return runner.dissect(config, workdir, flags.overwrite, processes)


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
