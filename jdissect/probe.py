"""Finds batch sizes that suit this machine: python -m jdissect.probe --config=...

Times the config's network, and its segmenter if that is a network, on random images at
growing batch sizes, and prints the values to set. A run itself never probes, because
its bits depend on the batch sizes.
"""

import functools
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and probes; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.runtime import command_line

    flags = command_line.define(argv, {}, {})
    config = command_line.parse(flags, argv)
    from jdissect.jobs.batch_size import probe

    found = probe(config, tell=functools.partial(print, flush=True))
    print("\nset:", *(f"--config.{key}={size}" for key, size in found.items()))
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
