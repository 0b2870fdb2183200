"""Formats tables that compare several networks on a terminal."""

from jdissect.analysis.comparison import Comparison
from jdissect.analysis.uncertainty import Interval
from jdissect.report import compared_findings
from jdissect.report.compared_findings import ComparedFindings
from jdissect.report.tables.layer import aligned


def comparison_table(comparison: Comparison) -> str:
    """Returns unique concepts by category and IoU threshold, one line per network.

    Intervals of the total are included if known, see `uncertainty`.
    """
    models = comparison.models
    known = [comparison.estimates(model) for model in models]
    names = list(models[0].result.unique_concepts(0.0))
    rows: list[list] = [
        ["IoU >", "network", *names, "expected", "cross-fitted", "top-1 error"]
    ]
    for threshold in comparison.thresholds:
        for number, (model, estimates) in enumerate(zip(models, known, strict=True)):
            total = estimates.counts[threshold]["total"] if estimates else None
            rows.append(
                [
                    "" if number else f"{threshold:g}",
                    model.name,
                    *model.result.unique_concepts(threshold).values(),
                    _interval(total.expected if total else None),
                    f"{total.cross_fitted:.1f} {_interval(total.interval)}"
                    if total
                    else "-",
                    "-" if model.error is None else f"{model.error:.2f} %",
                ]
            )
    return aligned(rows)


def differences_table(comparison: Comparison) -> str:
    """Returns each network's total unique concepts minus those of the first."""
    first, *others = comparison.models
    rows = [["IoU >", f"less {first.name}", "difference", "expected", "cross-fitted"]]
    for threshold in comparison.thresholds:
        before = first.result.unique_concepts(threshold)["total"]
        for number, model in enumerate(others):
            count = model.result.unique_concepts(threshold)["total"]
            found = comparison.difference(first, model, threshold)
            rows.append(
                [
                    "" if number else f"{threshold:g}",
                    model.name,
                    f"{count - before:+d}",
                    _interval(found.expected if found else None, "+"),
                    f"{found.cross_fitted:+.1f} {_interval(found.interval, '+')}"
                    if found
                    else "-",
                ]
            )
    return aligned(rows)


def findings_table(comparison: Comparison, known: ComparedFindings) -> str:
    """Returns detectors by chance and by formula, and verified ones; '' for none."""
    rows = compared_findings.table(comparison, known)
    return aligned(rows) if rows else ""


def _interval(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    return f"[{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"
