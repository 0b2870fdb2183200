"""The scores of a layer as a table in long form, `scores.csv`."""

import os
from collections.abc import Iterator
from typing import Any

from jdissect.base import paths
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.scoring.measured import Measured

FILE = "scores.csv"
HEADING = ("unit", "concept", "category", "score", "value")


def rows(
    result: Any, measured: Measured | None = None
) -> Iterator[tuple[str, str, str, str, float]]:
    """Yields (unit, concept, category, score, value) of each unit with its concept.

    Units without a concept have no row.

    Args:
      result: the `layer_result.Result`; all scores from its counts.
      measured: those that need activations, see `measured.read`.
    """
    scores = result.scores()
    for unit, (name, concept, category, values) in enumerate(scores.pairs()):
        if concept is None or category is None:
            continue
        if measured is not None:
            values |= measured.of_pair(unit, int(scores.column[unit]))
        for score, value in values.items():
            yield str(name), concept, category, score, value


def write(
    folder: str | os.PathLike, result: Any, measured: Measured | None = None
) -> None:
    """Writes `scores.csv` into a layer's folder.

    Raises:
      OSError: the file cannot be written; no partial file is left.
    """
    text = csv_text([HEADING, *rows(result, measured)])
    write_whole(paths.from_user(folder) / FILE, utf8(text))
