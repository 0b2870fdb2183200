"""Reports an ablation: on a terminal, as JSON, and as CSV tables.

All accuracies are percent of the images, all changes percentage points.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from jdissect.ablation.detector_groups import Interpretable, Zeroed
from jdissect.ablation.interventions import by_class
from jdissect.ablation.run import Ablation
from jdissect.analysis.paired_bootstrap import Change, change_of_few
from jdissect.base import paths, replacing
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.base.errors import UserError
from jdissect.data.source import skipped_line
from jdissect.report.tables.layer import aligned
from jdissect.results.layer_result import exact

_SHOWN = 10  # lines per table on a terminal
_STRONGEST = 10  # units per class in units_by_class.csv
_GROUPS = {"detectors": "detectors", "others": "other units", "any": "any units"}


def check_output(text: str) -> paths.Path | None:
    """Returns the folder that --output names; None for ''.

    Raises:
      UserError: it is a file.
    """
    if not text:
        return None
    folder = paths.from_user(text)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{text} is a file; give another --output")
    return folder


def write(found: Ablation, folder: paths.Path) -> None:
    """Writes ablation.json, by_class.csv, units_by_class.csv, single_units.csv.

    Names that a spreadsheet would run as formulas are escaped (`csv_cells.safe_cell`).

    Raises:
      OSError, UserError: see `atomic_files.write_whole`.
    """
    tables = {
        "by_class": classes_changed(found),
        "units_by_class": list(_strongest(found, _STRONGEST)),
        "single_units": _singles(found),
    }
    content = json.dumps(to_json(found), indent=2, ensure_ascii=False)
    own = [f"{name}.csv" for name in tables]
    with replacing.content_of(folder, "ablation.json", own) as place:
        for name, rows in tables.items():
            write_whole(place / f"{name}.csv", _csv(rows))
        write_whole(place / "ablation.json", utf8(content + "\n"))


def to_json(found: Ablation) -> dict[str, Any]:
    """Returns the content of ablation.json."""
    before, after = found.before.right[0], found.after.right[0]
    return {
        "format_version": 1,
        "model": found.model,
        "weights_sha256": found.weights_sha256,
        "layer": found.layer,
        "run": found.run,
        "source": found.source,
        "split": found.split,
        "images": len(found.labels),
        "skipped": len(found.skipped),
        "seed": found.seed,
        "choice": found.choice.text,
        "units": found.names[found.chosen].tolist(),
        "units_of_layer": found.units,
        "forward_passes": found.passes,
        "top1_before": _percent(before.mean()),
        "top1_after": _percent(after.mean()),
        **_interval("change", found.change),
        "images_lost": int((before & ~after).sum()),
        "images_gained": int((after & ~before).sum()),
        "interpretable": found.interpretable and _compared_json(found.interpretable),
        "note": found.note,
    }


def _compared_json(one: Interpretable) -> dict[str, Any]:
    def plain(zeroed: Zeroed) -> dict[str, Any]:
        content = dataclasses.asdict(zeroed) | {"top1": _percent(zeroed.top1)}
        content["spread"] = [_percent(share) for share in zeroed.spread]
        return {**content, **_interval("change", zeroed.change)}

    return {
        "iou_threshold": one.threshold,
        "whole": [plain(zeroed) for zeroed in one.whole],
        "equal": [plain(zeroed) for zeroed in one.equal],
        **_interval("difference", one.difference),
        "single_unit_loss": one.loss and dataclasses.asdict(one.loss),
        "iou_loss_rank_correlation": one.correlation,
    }


def classes_changed(found: Ablation) -> list[dict[str, Any]]:
    """Returns one row per class with images, in the order of classes."""
    before, after = found.before.right[0], found.after.right[0]
    count = len(found.classes)
    sums = by_class(
        np.stack([np.ones_like(before), before, after, before & ~after]).astype(int),
        found.labels,
        count,
    )
    rows = []
    for number in np.flatnonzero(sums[0]):
        images, was, is_now, lost = map(int, sums[:, number])
        changed = change_of_few(lost, is_now - was + lost, images)
        rows.append(
            {
                "class": found.classes[number],
                "images": images,
                "top1_before": _percent(was / images),
                "top1_after": _percent(is_now / images),
                "change": _percent(changed.value),
                "low": _percent(changed.low),
                "high": _percent(changed.high),
            }
        )
    return rows


def _strongest(found: Ablation, count: int) -> Iterable[dict[str, Any]]:
    """Yields the units that each class needs most."""
    classes = len(found.classes)
    images = np.bincount(found.labels, minlength=classes)
    right = by_class(found.before.right[0].astype(int), found.labels, classes)
    loss = -by_class(
        found.before.log_probability[0].astype(float), found.labels, classes
    )
    for number in np.flatnonzero(images):
        for rank, place in enumerate(found.ranking[number, :count], 1):
            lost = int(right[number] - found.alone.right[place, number])
            added = float(found.alone.loss[place, number] - loss[number])
            yield {
                "class": found.classes[number],
                "rank": rank,
                **_unit(found, int(found.alone.units[place])),
                "change": _percent(-lost / images[number]),
                "log_probability_change": round(-added / int(images[number]), 6),
            }


def _singles(found: Ablation) -> list[dict[str, Any]]:
    images = len(found.labels)
    right = int(found.before.right.sum())
    loss = -float(found.before.log_probability.astype(float).sum())
    return [
        {
            **_unit(found, int(unit)),
            "change": _percent((found.alone.right[place].sum() - right) / images),
            "loss_change": round((found.alone.loss[place].sum() - loss) / images, 6),
        }
        for place, unit in enumerate(found.alone.units)
    ]


def _unit(found: Ablation, unit: int) -> dict[str, Any]:
    """Returns a unit with its concept, if known."""
    concept = category = iou = ""
    if found.result is not None and (column := found.result.best_concept[unit]) >= 0:
        concept, category = (
            found.result.concepts[column],
            found.result.categories[column],
        )
        iou = exact(found.result.best_iou[unit])
    name = found.names[unit].item()  # a number, or text such as `12-`
    return {"unit": name, "concept": concept, "category": category, "iou": iou}


def text(found: Ablation) -> str:
    """Returns the summary for the terminal."""
    before, after = found.before.right[0], found.after.right[0]
    lost, gained = (before & ~after).sum(), (after & ~before).sum()
    how = (
        "in one forward pass"
        if found.linear
        else f"in {found.passes} forward passes, as other layers follow {found.layer}"
    )
    sections = [
        f"{found.model}, {found.layer}: {len(found.chosen)} of {found.units} units "
        f"zeroed ({found.choice.text}), {len(before)} images, {how}",
        f"top-1 before  {_percent(before.mean()):6.2f} %\n"
        f"top-1 after   {_percent(after.mean()):6.2f} %\n"
        f"change        {_points(found.change)}: {lost} images lost, {gained} gained",
        "Classes hurt most\n\n" + _hurt(found),
        _heading_of_units(found) + "\n\n" + _needed(found),
    ]
    if found.interpretable:
        sections.append(_compared_text(found.interpretable))
    else:
        sections.append(f"No comparison of interpretable units: {found.note}")
    if found.skipped:
        sections.append(skipped_line(found.skipped))
    return "\n\n".join(sections)


def _hurt(found):
    rows = sorted(classes_changed(found), key=lambda row: row["change"])
    lines = [["class", "images", "before", "after", "change", "95 % interval"]]
    for row in rows[:_SHOWN]:
        numbers = [f"{row[key]:.2f}" for key in ("top1_before", "top1_after", "change")]
        interval = f"{row['low']:.2f} .. {row['high']:.2f}"
        lines.append([row["class"], row["images"], *numbers, interval])
    return aligned(lines)


def _heading_of_units(found):
    which = "The unit" if found.linear else "Of the requested units, the one"
    return f"{which} that each class needs most, zeroed by itself"


def _needed(found):
    rows = sorted(_strongest(found, 1), key=lambda row: row["log_probability_change"])
    lines = [["class", "unit", "concept", "IoU", "change", "log-probability"]]
    for row in rows[:_SHOWN]:
        iou = f"{float(row['iou']):.3f}" if row["iou"] else ""
        numbers = [f"{row['change']:.2f}", f"{row['log_probability_change']:.3f}"]
        lines.append([row["class"], row["unit"], row["concept"], iou, *numbers])
    return aligned(lines)


def _compared_text(one: Interpretable) -> str:
    lines: list[list] = [
        ["zeroed", "units", "draws", "top-1", "change", "95 % interval"]
    ]
    for zeroed in dict.fromkeys((*one.whole, *one.equal)):
        change = zeroed.change
        lines.append(
            [
                ("all " if zeroed in one.whole else "") + _GROUPS[zeroed.group],
                zeroed.units,
                zeroed.draws,
                f"{_percent(zeroed.top1):.2f}",
                f"{_percent(change.value):.2f}",
                f"{_percent(change.low):.2f} .. {_percent(change.high):.2f}",
            ]
        )
    size = one.equal[0].units
    parts = [
        f"Interpretable (IoU > {one.threshold:g}) against uninterpretable units\n",
        aligned(lines),
        f"\n{size} detectors zeroed instead of {size} other units: top-1 differs by "
        f"{_points(one.difference)}",
    ]
    if one.loss is not None:
        parts.append(
            f"a single detector adds {one.loss.value:+.5f} more to the mean loss "
            f"than another unit (95 % interval {one.loss.low:+.5f} .. "
            f"{one.loss.high:+.5f}); rank correlation of IoU and added loss "
            f"{one.correlation:.2f}"
        )
    return "\n".join(parts)


def _points(change: Change) -> str:
    return (
        f"{_percent(change.value):+.2f} points (95 % interval "
        f"{_percent(change.low):+.2f} .. {_percent(change.high):+.2f})"
    )


def _interval(name: str, change: Change) -> dict[str, Any]:
    return {
        name: _percent(change.value),
        f"{name}_interval": [_percent(change.low), _percent(change.high)],
    }


def _percent(share) -> float:
    return round(100 * float(share), 4) + 0.0


def _csv(rows: list[dict[str, Any]]) -> bytes:
    return utf8(csv_text([rows[0], *(row.values() for row in rows)]))
