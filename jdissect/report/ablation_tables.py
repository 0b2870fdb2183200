"""What zeroing units did, on a terminal and as tables."""

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jdissect import paths
from jdissect.files import write_whole
from jdissect.interventions import Change, paired_change
from jdissect.report.table import aligned
from jdissect.results import Result
from jdissect.tables import safe_cell

if TYPE_CHECKING:
    from jdissect.ablation import Outcome

_SHOWN = 5  # classes on a terminal
_STRONGEST = 5  # units of a class


def text(outcome: "Outcome", result: Result, name: str, seed: int) -> str:
    """For a terminal."""
    images, zeroed = len(outcome.labels), len(outcome.units)
    overall = paired_change(outcome.before, outcome.after, seed)
    lines = [
        f"{name}: {zeroed} of {len(result.thresholds)} units zeroed, {images} images\n",
        f"top-1 {100 * outcome.before.mean():.2f} % before, "
        f"{100 * outcome.after.mean():.2f} % after: {_points(overall)}\n",
    ]
    rows = [["class", "images", "before", "after", "change", "strongest unit for it"]]
    worst = sorted(by_class(outcome, seed), key=lambda row: row["change"])
    strongest = {row["class"]: row for row in units_by_class(outcome, result, 1)}
    for row in worst[:_SHOWN]:
        best = strongest.get(row["class"])
        rows.append(
            [
                row["class"],
                row["images"],
                f"{row['before']:.1f} %",
                f"{row['after']:.1f} %",
                f"{row['change']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
                f"{best['unit']} ({best['concept'] or 'never fires'})" if best else "-",
            ]
        )
    lines.append(aligned(rows))
    lines.append("")
    found = outcome.contrast
    if found is None:
        lines.append(
            "Detectors against others: measured for the last layer before the mean, "
            "where both exist."
        )
    else:
        lines += [
            f"Interpretable against other units, {found.size} of each zeroed "
            f"(detectors: IoU > {outcome.threshold:g}):",
            f"  detectors   {_points(found.detectors)}",
            f"  others      {_points(found.others)}",
            f"  difference  {_points(found.difference)}",
        ]
    return "\n".join(lines)


def write(
    outcome: "Outcome", result: Result, name: str, folder: str | os.PathLike, seed: int
) -> None:
    """Writes ablation.json, by_class.csv, units_by_class.csv and single_units.csv.

    Raises:
      OSError: as the file system has it; no file is left half-written.
    """
    folder = paths.from_user(folder)
    paths.make_folder(folder)
    overall = paired_change(outcome.before, outcome.after, seed)
    found = outcome.contrast
    content = {
        "network": name,
        "units": outcome.units.tolist(),
        "images": len(outcome.labels),
        "top1_before": 100 * float(outcome.before.mean()),
        "top1_after": 100 * float(outcome.after.mean()),
        "change": _json(overall),
        "by_class": list(by_class(outcome, seed)),
        "contrast": found
        and {
            "iou_threshold": outcome.threshold,
            "zeroed": found.size,
            "detectors": _json(found.detectors),
            "others": _json(found.others),
            "difference": _json(found.difference),
        },
    }
    tables = {
        "by_class.csv": list(by_class(outcome, seed)),
        "units_by_class.csv": list(units_by_class(outcome, result)),
        "single_units.csv": list(single_units(outcome, result)),
    }
    for file, rows in tables.items():
        write_whole(folder / file, _csv(rows).encode())
    data = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / "ablation.json", data.encode())


def by_class(outcome: "Outcome", seed: int) -> Iterator[dict[str, Any]]:
    """Top-1 accuracy of each class that has images, percent; its change in points."""
    for number, name in enumerate(outcome.classes):
        here = outcome.labels == number
        if not here.any():
            continue
        before, after = outcome.before[here], outcome.after[here]
        change = paired_change(before, after, seed)
        yield {
            "class": name,
            "images": int(here.sum()),
            "before": 100 * float(before.mean()),
            "after": 100 * float(after.mean()),
            "change": change.value,
            "low": change.low,
            "high": change.high,
        }


def units_by_class(
    outcome: "Outcome", result: Result, strongest: int = _STRONGEST
) -> Iterator[dict[str, Any]]:
    """The units that each class loses most by, one zeroed at a time.

    By the drop of its accuracy, then by the log-probability that its images lose.
    """
    for number, name in enumerate(outcome.classes):
        here = outcome.labels == number
        if not here.any():
            continue
        before = int(outcome.before[here].sum())
        drop = before - outcome.right[:, number]
        order = np.lexsort((-outcome.loss[:, number], -drop))
        for rank, place in enumerate(order[:strongest]):
            yield {
                "class": name,
                "rank": rank + 1,
                **_unit(result, outcome.single[place]),
                "accuracy_drop": 100 * int(drop[place]) / int(here.sum()),
                "log_probability_loss": float(outcome.loss[place, number]),
            }


def single_units(outcome: "Outcome", result: Result) -> Iterator[dict[str, Any]]:
    """What each unit does when it alone is zeroed, over all images."""
    images = len(outcome.labels)
    weights = np.bincount(outcome.labels, minlength=len(outcome.classes)) / images
    before = int(outcome.before.sum())
    for place, unit in enumerate(outcome.single):
        yield {
            **_unit(result, unit),
            "top1_change": 100 * (int(outcome.right[place].sum()) - before) / images,
            "log_probability_loss": float(outcome.loss[place] @ weights),
        }


def _unit(result: Result, unit: int) -> dict[str, Any]:
    column = result.best_concept[unit]
    return {
        "unit": int(unit),
        "concept": result.concepts[column] if column >= 0 else "",
        "category": result.categories[column] if column >= 0 else "",
        "iou": round(float(result.best_iou[unit]), 6),
    }


def _points(change: Change) -> str:
    return f"{change.value:+.2f} points [{change.low:+.2f}, {change.high:+.2f}]"


def _json(change: Change) -> dict[str, float]:
    return {"value": change.value, "low": change.low, "high": change.high}


def _csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([safe_cell(value) for value in row.values()])
    return file.getvalue()
