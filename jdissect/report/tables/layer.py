"""Formats a run's results for a terminal."""

import numpy as np

from jdissect.base.printable import printable
from jdissect.ops import sketch
from jdissect.results.layer_result import FEW_IMAGES, Result

BEST_UNITS = 10


def counts_table(result: Result) -> str:
    """Returns unique concepts and detector units by category, per threshold."""
    names = list(result.unique_concepts(0.0))
    rows: list[list] = [["IoU >", "", *names]]
    for threshold in result.iou_thresholds:
        concepts = result.unique_concepts(threshold)
        units = result.detector_units(threshold)
        rows.append(
            [f"{threshold:g}", "unique concepts"] + [concepts[n] for n in names]
        )
        rows.append(["", "detector units"] + [units[n] for n in names])
    return aligned(rows)


def best_units_table(result: Result, count: int = BEST_UNITS) -> str:
    """Returns the units of highest IoU with their concepts."""
    order = np.argsort(-result.best_iou, kind="stable")[:count]
    rows = [["unit", "IoU", "concept", "category", "T_k"]]
    thresholds = result.shown_thresholds
    for unit in order:
        column = result.best_concept[unit]
        if column < 0:
            continue
        rows.append(
            [
                result.unit_names[unit],
                f"{result.best_iou[unit]:.3f}",
                result.concepts[column],
                result.categories[column],
                f"{thresholds[unit]:.4g}",
            ]
        )
    return aligned(rows)


def remarks(result: Result) -> list[str]:
    """Returns caveats about the tables, one paragraph each."""
    found = []
    pixels = int(result.histogram_counts.sum(axis=1).max(initial=0))
    if pixels and not sketch.allowance(pixels, result.quantile):
        found.append(
            f"No unit can fire: quantile {result.quantile:g} of {pixels:,} pixels is "
            "less than one pixel.\nTake more images, a larger config.mask_size or a "
            "larger config.quantile."
        )
    elif not (result.fires > 0).any():
        found.append(
            "No unit fires: each has its highest value on more pixels than quantile "
            f"{result.quantile:g} allows,\nas when all its activations are equal."
        )
    if result.images < FEW_IMAGES:
        found.append(
            f"Only {result.images} image{'s' * (result.images != 1)}: counts of fewer "
            f"than {FEW_IMAGES} say little about a network:\na random network "
            "has about as many concepts."
        )
    return found


def layer_report(result: Result) -> str:
    """Returns both tables with a heading and caveats."""
    heading = (
        f"{result.model or 'model'}, {result.layer}: {len(result.thresholds)} units, "
        f"{result.images} images, quantile {result.quantile:g}"
        + (f", tail {result.tail}" if result.tail != "upper" else "")
    )
    lines = [heading, "", counts_table(result), ""]
    if (result.fires > 0).any():
        lines += [best_units_table(result), ""]
    for text in remarks(result):
        lines += [text, ""]
    return "\n".join(lines)


def aligned(rows: list[list]) -> str:
    """Aligns columns two spaces apart, numbers to the right."""
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
