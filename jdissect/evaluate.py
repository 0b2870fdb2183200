"""Measures top-1 and top-5 errors: python -m jdissect.evaluate --config=mixup"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and evaluates; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.runtime import command_line

    flags = command_line.define(
        argv,
        {"output": "JSON file to write the errors to.", **command_line.PROCESSES},
        {},
    )
    config = command_line.parse(flags, argv)
    processes = command_line.join(flags)
    from jdissect.evaluation import run
    from jdissect.runtime import preemption

    # There is nothing to save, so a process of many also ends at once: JAX would only
    # record the signal.
    with preemption.on_sigterm(preemption.terminate):
        run.evaluate(config, flags.output, processes)
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
