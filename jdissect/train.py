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
    from jdissect import cli

    flags = cli.define(
        argv,
        {
            "workdir": "Run directory; default runs/NAME[-VARIANT]-train, of --config.",
            **cli.PROCESSES,
        },
        {"overwrite": "Replace a training, once the new one is finished."},
    )
    config = cli.parse(flags, argv)
    workdir = flags.workdir or f"runs/{cli.run_name(flags)}-train"
    processes = cli.join(flags)
    module = importlib.import_module(f"jdissect.training.{runner}")
    return module.train(config, workdir, flags.overwrite, processes)


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
