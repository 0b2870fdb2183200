"""Top-1 and top-5 error: python -m jdissect.evaluate --config=configs/mixup.py"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and evaluates; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli

    flags = cli.define(
        argv,
        {"output": "JSON file to write the errors to.", **cli.PROCESSES},
        {},
    )
    config = cli.parse(flags, argv)
    processes = cli.join(flags)
    from jdissect import termination
    from jdissect.training import runner

    # There is nothing to save, so that one of many processes ends at once, too: JAX
    # would only remember the signal.
    with termination.on_sigterm(termination.end):
        runner.evaluate(config, flags.output, processes)
    return 0


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
