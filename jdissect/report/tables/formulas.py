"""Formats the formulas of a layer for a terminal."""

import math

import numpy as np

from jdissect.formulas.stored import Formulas
from jdissect.report.tables.layer import aligned


def formulas_report(found: Formulas, count: int) -> str:
    """Returns the means by length, the best formulas, and what the beam missed."""
    parts = [_heading(found), lengths_table(found), best_formulas_table(found, count)]
    if found.settings.method == "optimum":
        loss = found.iou - found.beam_iou
        parts.append(
            f"The beam search misses the optimum in {int((loss > 0).sum())} of "
            f"{len(loss)} units, by up to {loss.max(initial=0):.3f}."
        )
    return "\n\n".join(part for part in parts if part)


def _heading(found: Formulas) -> str:
    return (
        f"{len(found.formulas)} units, {found.atoms:,} sets of concepts at pixels, "
        f"{found.visited.sum():,} formulas computed ({found.settings.method})"
    )


def lengths_table(found: Formulas) -> str:
    """Returns mean IoUs over units by the number of concepts in a formula."""
    rows: list[list] = [["concepts", "mean IoU", "cross-fitted", "difference"]]
    means = zip(found.mean_iou, found.mean_cross_fitted, strict=True)
    for length, (mean, crossed) in enumerate(means, 1):
        known = not math.isnan(crossed)
        rows.append(
            [
                "1" if length == 1 else f"up to {length}",
                f"{mean:.4f}",
                f"{crossed:.4f}" if known else "-",
                f"{mean - crossed:.4f}" if known else "-",
            ]
        )
    return aligned(rows)


def best_formulas_table(found: Formulas, count: int) -> str:
    """Returns the units whose formulas have the highest IoU; '' without any."""
    order = np.argsort(-found.iou, kind="stable")[:count]
    rows: list[list] = [["unit", "IoU", "95 % interval", "cross-fitted", "formula"]]
    for unit in order:
        if not found.formulas[unit]:
            continue
        low, high = float(found.low[unit]), float(found.high[unit])
        crossed = float(found.cross_fitted[unit])
        rows.append(
            [
                found.unit_names[unit],
                f"{found.iou[unit]:.3f}",
                "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}",
                "-" if math.isnan(crossed) else f"{crossed:.3f}",
                found.formulas[unit],
            ]
        )
    return aligned(rows) if len(rows) > 1 else ""
