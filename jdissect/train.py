"""Trains a classifier: python -m jdissect.train --config=configs/mixup.py"""

import functools
import sys
from collections.abc import Callable, Sequence


def _train(*arguments) -> int:
    from jdissect.training import train_classifier

    return train_classifier.train(*arguments)


def main(argv: Sequence[str], train: Callable[..., int] = _train) -> int:
    """Parses the command line and trains; returns the exit code.

    Args:
      argv: the command line.
      train: trains, given (config, workdir, overwrite, processes, tell).
    """
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.runtime import command_line

    flags = command_line.define(
        argv,
        {
            "workdir": "Run directory; default runs/NAME[-VARIANT]-train, of --config.",
            **command_line.PROCESSES,
        },
        {"overwrite": "Replace a training run, once the new one is finished."},
    )
    config = command_line.parse(flags, argv)
    workdir = flags.workdir or f"runs/{command_line.run_name(flags)}-train"
    processes = command_line.join(flags)
    tell = functools.partial(print, flush=True)
    return train(config, workdir, flags.overwrite, processes, tell)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
