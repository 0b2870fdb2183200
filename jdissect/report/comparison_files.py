"""Writes a comparison's figures, CSV tables and JSON."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jdissect.analysis import uncertainty
from jdissect.analysis.comparison import Change, Comparison, Model, changes, levels
from jdissect.analysis.uncertainty import Estimate
from jdissect.base import paths
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.report import compared_findings
from jdissect.report.compared_findings import ComparedFindings
from jdissect.report.figures import charts, drawing

MARK = "comparison.json"
OWN = (
    *("counts.csv", "differences.csv", "changes.csv", "curve.csv", "report.html"),
    *("findings.csv", "formula_changes.csv"),
    *("unique_concepts.svg", "curve.svg", "differences.svg"),
    *("unique_concepts.png", "curve.png", "differences.png"),
)
CURVE = tuple(round(0.01 + 0.005 * step, 3) for step in range(59))  # 0.01 to 0.3
_OPTIONAL = (
    *("comparison.json", "report.html", "differences.svg", "differences.png"),
    *("findings.csv", "formula_changes.csv"),
)
_INTERVALS = ("expected", "interval", "population")
_COLUMNS = {"interval": "cross_fitted"}  # name of its interval in a table


def write(
    comparison: Comparison,
    folder: str | os.PathLike,
    known: ComparedFindings | None = None,
) -> dict[str, str]:
    """Writes figures and tables.

    Args:
      comparison: the comparison of the models.
      known: what is known of them beside their counts.
      folder: folder to write to; it is created if missing.

    Returns:
      {title of a figure: the figure as SVG}, for a page.

    Raises:
      OSError, UserError: see `atomic_files.write_whole`.
    """
    folder = paths.from_user(folder)
    paths.make_folder(folder)
    counts = list(_counts(comparison))
    against = list(_differences(comparison))
    found = list(_changes(comparison))
    curve = {model.name: _curve(model) for model in comparison.models}
    tables = {
        "counts.csv": counts,
        "differences.csv": against,
        "changes.csv": found,
        "curve.csv": [
            {"model": name, "threshold": threshold, **row}
            for name, rows in curve.items()
            for threshold, row in zip(CURVE, rows, strict=True)
        ],
    }
    if known is not None and known.kinds:
        tables["findings.csv"] = list(compared_findings.rows(comparison, known))
        if "formulas" in known.kinds:
            changed = list(compared_findings.formula_changes(comparison, known))
            tables["formula_changes.csv"] = changed
    content = {
        "format_version": 1,
        "notes": list(comparison.notes),
        "paired": comparison.paired,
        "thresholds": list(comparison.thresholds),
        "models": [_described(model) for model in comparison.models],
        "confidence": uncertainty.CONFIDENCE,
        "coverage": uncertainty.COVERAGE,
        **{name.removesuffix(".csv"): rows for name, rows in tables.items()},
    }
    # Removes files of an earlier comparison that this one may not overwrite.
    with paths.reaching(folder):
        for name in _OPTIONAL:
            (folder / name).unlink(missing_ok=True)
    figures = _figures(comparison, curve)
    for name, (_, figure) in figures.items():
        drawing.write(figure, folder, name)
    for name, rows in tables.items():
        write_whole(folder / name, utf8(_csv(rows)))
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_whole(folder / MARK, utf8(text + "\n"))
    return {title: drawing.svg(figure).decode() for title, figure in figures.values()}


def _described(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "run": paths.as_text(model.run.name),
        "network": model.result.model,
        "layer": model.layer,
        "units": len(model.result.thresholds),
        "images": model.result.images,
        "concepts": len(model.result.concepts),
        "quantile": model.result.quantile,
        "top1_error": model.error,
    }


def _counts(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yields one row per threshold, model and category."""
    for model in comparison.models:
        estimates = comparison.estimates(model)
        for threshold in comparison.thresholds:
            units = model.result.detector_units(threshold)
            for category, count in model.result.unique_concepts(threshold).items():
                estimate = estimates.counts[threshold][category] if estimates else None
                yield {
                    "threshold": threshold,
                    "model": model.name,
                    "category": category,
                    "unique_concepts": count,
                    "detector_units": units[category],
                    **_intervals(estimate),
                    "top1_error": model.error,
                }


def _differences(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yields one row per threshold, category and model minus the first model."""
    first, *others = comparison.models
    for model in others:
        for threshold in comparison.thresholds:
            before = first.result.unique_concepts(threshold)
            for category, count in model.result.unique_concepts(threshold).items():
                estimate = comparison.difference(first, model, threshold, category)
                yield {
                    "threshold": threshold,
                    "model": model.name,
                    "less": first.name,
                    "category": category,
                    "difference": count - before[category],
                    **_intervals(estimate),
                }


def _intervals(estimate: Estimate | None) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for name in _INTERVALS:
        low, high = (None, None) if estimate is None else getattr(estimate, name)
        if name == "interval":
            fitted = round(estimate.cross_fitted, 3) if estimate else None
            row["cross_fitted"] = fitted
        prefix = _COLUMNS.get(name, name)
        for end, value in (("low", low), ("high", high)):
            row[f"{prefix}_{end}"] = None if value is None else round(value, 3)
    return row


def _changes(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yields one row per threshold, pair of models and concept only one detects."""

    def row(threshold, model, without, change: Change, iou: tuple[float, float]):
        return {
            "threshold": threshold,
            "detected_by": model.name,
            "not_by": without.name,
            "concept": change.concept,
            "category": change.category,
            "iou": iou[0],
            "iou_there": iou[1],
            "share_of_resamples": change.share and round(change.share, 3),
        }

    for threshold in comparison.thresholds:
        for number, first in enumerate(comparison.models):
            for second in comparison.models[number + 1 :]:
                gained, lost = changes(comparison, first, second, threshold)
                for change in gained:
                    yield row(threshold, second, first, change, change.iou[::-1])
                for change in lost:
                    yield row(threshold, first, second, change, change.iou)


def _curve(model: Model) -> list[dict[str, float]]:
    """Returns unique concepts at every threshold of CURVE, with known intervals."""
    reached = levels(model.result)
    rows: list[dict[str, float]] = [
        {"unique_concepts": int((reached > threshold).sum())} for threshold in CURVE
    ]
    if model.samples is not None:
        for row, threshold in zip(rows, CURVE, strict=True):
            low, high = uncertainty.expected(model.samples, threshold)
            row |= {"expected_low": round(low, 3), "expected_high": round(high, 3)}
    return rows


def _figures(comparison: Comparison, curve: Mapping[str, list]) -> dict[str, tuple]:
    """Returns {file: (title, figure)}."""
    note = " ".join(comparison.notes)
    figures = {
        "unique_concepts": (
            "Unique concepts by category",
            charts.concepts_by_category(_panels(comparison), note=note),
        ),
        "curve": (
            "Unique concepts at every IoU threshold",
            charts.curve(
                CURVE,
                [_line(name, rows) for name, rows in curve.items()],
                marked=comparison.thresholds,
                note=note,
            ),
        ),
    }
    first, *others = comparison.models
    if others:
        figures["differences"] = (
            f"Difference to {first.name}",
            charts.differences(
                {
                    threshold: [
                        _difference(comparison, first, model, threshold)
                        for model in others
                    ]
                    for threshold in comparison.thresholds
                },
                baseline=first.name,
                note=note,
            ),
        )
    return figures


def _panels(comparison: Comparison) -> dict[float, list[charts.Bar]]:
    estimates = [comparison.estimates(model) for model in comparison.models]
    panels: dict[float, list[charts.Bar]] = {}
    for threshold in comparison.thresholds:
        panels[threshold] = []
        for model, known in zip(comparison.models, estimates, strict=True):
            total = known.counts[threshold]["total"] if known else None
            panels[threshold].append(
                charts.Bar(
                    model=model.name,
                    counts=model.result.unique_concepts(threshold),
                    interval=total.expected if total else None,
                    cross_fitted=total.cross_fitted if total else None,
                    cross_interval=total.interval if total else None,
                    error=model.error,
                )
            )
    return panels


def _line(name: str, rows: list[dict[str, float]]) -> charts.Line:
    known = "expected_low" in rows[0]
    return charts.Line(
        name,
        np.array([row["unique_concepts"] for row in rows]),
        np.array([row["expected_low"] for row in rows]) if known else None,
        np.array([row["expected_high"] for row in rows]) if known else None,
    )


def _difference(comparison, first: Model, model: Model, threshold: float):
    counts = [one.result.unique_concepts(threshold)["total"] for one in (first, model)]
    estimate = comparison.difference(first, model, threshold)
    return charts.Difference(
        model.name, counts[1] - counts[0], estimate and estimate.expected
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    return csv_text([rows[0] if rows else [], *(row.values() for row in rows)])
