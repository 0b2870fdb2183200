"""Trains a UPerNet: python -m jdissect.train_segmenter --config=configs/segmenter.py"""

import sys
from collections.abc import Sequence

from jdissect import train


def _train(*arguments) -> int:
    from jdissect.training import train_segmenter

    return train_segmenter.train(*arguments)


def main(argv: Sequence[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    return train.main(argv, _train)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
