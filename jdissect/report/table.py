"""What a run found, on a terminal."""

import numpy as np

from jdissect.results import Result
from jdissect.text import printable

BEST_UNITS = 10


def counts_table(result: Result) -> str:
    """Unique concepts and detector units by category, a line a threshold."""
    names = list(result.unique_concepts(0.0))
    rows = [["IoU >", "", *names]]
    for threshold in result.iou_thresholds:
        concepts = result.unique_concepts(threshold)
        units = result.detector_units(threshold)
        rows.append(
            [f"{threshold:g}", "unique concepts"] + [concepts[n] for n in names]
        )
        rows.append(["", "detector units"] + [units[n] for n in names])
    return aligned(rows)


def best_units_table(result: Result, count: int = BEST_UNITS) -> str:
    """The units of highest IoU with their concepts."""
    order = np.argsort(-result.best_iou, kind="stable")[:count]
    rows = [["unit", "IoU", "concept", "category", "T_k"]]
    for unit in order:
        column = result.best_concept[unit]
        if column < 0:
            continue
        rows.append(
            [
                unit,
                f"{result.best_iou[unit]:.3f}",
                result.concepts[column],
                result.categories[column],
                f"{result.thresholds[unit]:.4g}",
            ]
        )
    return aligned(rows)


def layer_report(result: Result) -> str:
    """Both tables with a heading."""
    heading = (
        f"{result.model or 'model'}, {result.layer}: {len(result.thresholds)} units, "
        f"{result.images} images, quantile {result.quantile:g}"
    )
    return "\n".join(
        [heading, "", counts_table(result), "", best_units_table(result), ""]
    )


def aligned(rows: list[list]) -> str:
    """Columns two spaces apart, numbers to the right."""
    text = [[printable(str(cell), 80) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    number = [all(_is_number(row[i]) for row in text[1:]) for i in range(len(text[0]))]
    lines = []
    for row in text:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
