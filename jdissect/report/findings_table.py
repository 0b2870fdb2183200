"""Puts what is known of units beside their counts into a table, one row per unit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jdissect.report.findings import Findings
from jdissect.results.layer_result import Result

# {column: type}, after those of the unit and its concept.
COLUMNS = {
    **dict.fromkeys(("formula",), "string"),
    **dict.fromkeys(
        ("formula_iou", "formula_low", "formula_high", "formula_cross_fitted"),
        "double",
    ),
    **dict.fromkeys(("p", "q"), "double"),
    "concept_set": "list",
    "verified": "bool",
    **dict.fromkeys(("auc", "auc_low", "auc_high", "control"), "double"),
}


def columns(result: Result, found: Findings) -> dict[str, list[Any]]:
    """Returns {column of COLUMNS: a value or None per unit}, without what is not known.

    `concept_set` has the names of the concepts that may as well be the unit's best,
    the best first; `verified` is None for a label that could not be judged.
    """
    columns: dict[str, list[Any]] = {}
    if (formulas := found.formulas) is not None:
        columns |= {
            "formula": [text or None for text in formulas.formulas],
            "formula_iou": _known(formulas.iou),
            "formula_low": _known(formulas.low),
            "formula_high": _known(formulas.high),
            "formula_cross_fitted": _known(formulas.cross_fitted),
        }
    if (chance := found.chance) is not None:
        columns |= {
            "p": _known(chance.values.pooled),
            "q": _known(chance.values.q),
            "concept_set": [
                [result.concepts[column] for column in chance.sets.of(unit)]
                for unit in range(len(result.thresholds))
            ],
        }
    if (labels := found.verified) is not None:
        count = len(result.thresholds)
        verified = [
            bool(right) if judged else None
            for right, judged in zip(labels.verified, labels.judged, strict=True)
        ]
        columns["verified"] = _spread(count, labels.unit, verified)
        for name in ("auc", "auc_low", "auc_high", "control"):
            values = _known(getattr(labels, name))
            columns[name] = _spread(count, labels.unit, values)
    return columns


def _known(values: Iterable[Any]) -> list[float | None]:
    return [None if value != value else float(value) for value in values]


def _spread(count: int, units: np.ndarray, values: Sequence[Any]) -> list[Any]:
    found = [None] * count
    for unit, value in zip(units.tolist(), values, strict=True):
        found[unit] = value
    return found


def by_unit(
    run: str, results: Mapping[str, Result], findings: Mapping[str, Findings]
) -> Any:
    """Returns an Arrow table of all units of a run.

    Columns: run, layer, unit, concept, category, iou, and COLUMNS; null where something
    is not known. A unit is a number, or text such as `12-` if lower tails count.

    Args:
      run: name of the run.
      results: {layer: result}.
      findings: {layer: what is known of it}.
    """
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {
        "string": text,
        "double": number,
        "bool": pyarrow.bool_(),
        "list": pyarrow.list_(text),
    }
    numbered = all(result.tail == "upper" for result in results.values())
    schema = pyarrow.schema(
        {
            "run": text,
            "layer": text,
            "unit": pyarrow.int32() if numbered else text,
            "concept": text,
            "category": text,
            "iou": number,
            **{name: kinds[kind] for name, kind in COLUMNS.items()},
        }
    )
    tables = []
    for layer, result in results.items():
        count, names = len(result.thresholds), result.unit_names.tolist()
        known = {
            "run": [run] * count,
            "layer": [layer] * count,
            "unit": names if numbered else list(map(str, names)),
            "concept": labels(result, result.concepts),
            "category": labels(result, result.categories),
            "iou": result.best_iou.tolist(),
            **dict.fromkeys(COLUMNS, [None] * count),
            **columns(result, findings[layer]),
        }
        tables.append(pyarrow.table(known, schema))
    return pyarrow.concat_tables(tables)


def labels(result: Result, values: Sequence[str]) -> list[str | None]:
    """Returns the value of each unit's concept; None for a unit without one."""
    columns = result.best_concept.tolist()
    return [values[column] if column >= 0 else None for column in columns]
