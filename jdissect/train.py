"""Trains a classifier: python -m jdissect.train --config=configs/mixup.py"""

import importlib
import sys
from collections.abc import Sequence


def main(argv: Sequence[str], runner: str = "runner") -> int:
    """Parses the command line and trains; returns the exit code.

    Args:
      argv: the command line.
      runner: module of `jdissect.training` whose `train` does it.
    """
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect.runtime import command_line

    flags = command_line.define(
        argv,
        {
            "workdir": "Run directory; default runs/NAME[-VARIANT]-train, of --config.",
            **command_line.PROCESSES,
        },
        {"overwrite": "Replace a training, once the new one is finished."},
    )
    config = command_line.parse(flags, argv)
    workdir = flags.workdir or f"runs/{command_line.run_name(flags)}-train"
    processes = command_line.join(flags)
    module = importlib.import_module(f"jdissect.training.{runner}")
    return module.train(config, workdir, flags.overwrite, processes)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
