"""Trains a UPerNet: python -m jdissect.train_segmenter --config=configs/segmenter.py"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli

    flags = cli.define(
        argv,
        {"workdir": "Run directory; default runs/NAME[-VARIANT]-train of the config."},
        {"overwrite": "Replace a training that is in --workdir."},
    )
    config = cli.parse(flags, argv)
    from jdissect.training import segmenter_runner

    workdir = flags.workdir or f"runs/{cli.run_name(flags)}-train"
    return segmenter_runner.train(config, workdir, flags.overwrite)


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
