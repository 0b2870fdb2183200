"""Gives a result as a table of pandas and as a data set of xarray."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jdissect.base.errors import UserError
from jdissect.report import findings_table
from jdissect.report.findings import Findings
from jdissect.results.layer_result import Result
from jdissect.scoring import measured

if TYPE_CHECKING:
    import pandas
    import xarray


def to_pandas(result: Result, rows: Sequence[tuple]) -> "pandas.DataFrame":
    """Returns one row per unit: unit, concept, category, iou, threshold.

    A unit without a concept has None in their place, and an IoU of 0.

    Args:
      result: result of a layer.
      rows: those of its units.csv, without the heading.

    Raises:
      UserError: pandas is not installed.
    """
    frames = _library("pandas")
    columns = result.best_concept
    named = columns >= 0

    def texts(values: tuple[str, ...]) -> list[str | None]:
        pairs = zip(columns.tolist(), named.tolist(), strict=True)
        return [values[column] if there else None for column, there in pairs]

    return frames.DataFrame(
        {
            "unit": result.unit_names.tolist(),
            "concept": texts(result.concepts),
            "category": texts(result.categories),
            "iou": np.where(named, result.best_iou, 0.0),
            "threshold": _thresholds(rows),
        }
    )


def with_more(
    result: Result, rows: Sequence[tuple], findings: Findings
) -> "pandas.DataFrame":
    """Returns `to_pandas` with a column per score, and what else is known of units.

    Args:
      result, rows: as for `to_pandas`.
      findings: what other commands found.
    """
    table = to_pandas(result, rows)
    scores = result.scores()
    for name, values in scores.values.items():
        if name not in table:
            table[name] = values
    if findings.measured is not None:
        pairs = zip(range(len(table)), scores.column.tolist(), strict=True)
        own = [
            findings.measured.of_pair(unit, column) if column >= 0 else {}
            for unit, column in pairs
        ]
        for name in measured.NAMES:
            table[name] = [values.get(name, np.nan) for values in own]
    for name, known in findings_table.columns(result, findings).items():
        table[name] = known
    return table


def to_xarray(result: Result, rows: Sequence[tuple]) -> "xarray.Dataset":
    """Returns all counts by unit and concept.

    Variables are iou, intersection and union [unit, concept], threshold and fires
    [unit], and top_image and top_value [unit, rank]. The coordinate `category` has the
    category of each concept.

    Args:
      result, rows: as for `to_pandas`.

    Raises:
      UserError: xarray is not installed.
    """
    arrays = _library("xarray")
    both = ("unit", "concept")
    return arrays.Dataset(
        {
            "iou": (both, result.iou),
            "intersection": (both, result.intersection),
            "union": (both, result.union),
            "threshold": ("unit", _thresholds(rows)),
            "fires": ("unit", result.fires),
            "top_image": (("unit", "rank"), result.top_image),
            "top_value": (("unit", "rank"), result.shown_top_value),
        },
        coords={
            "unit": result.unit_names.tolist(),
            "concept": list(result.concepts),
            "category": ("concept", list(result.categories)),
        },
        attrs={
            "model": result.model,
            "layer": result.layer,
            "images": result.images,
            "quantile": result.quantile,
        },
    )


def _thresholds(rows: Sequence[tuple]) -> Float[np.ndarray, " unit"]:
    return np.array([float(row[4]) for row in rows], np.float64)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed: pip install {name}") from None
