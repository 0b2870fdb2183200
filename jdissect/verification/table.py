"""Rows of the tables that the command prints."""

import collections

import numpy as np

from jdissect.base.printable import printable
from jdissect.verification.verified import Verified

_CONCEPTS = 20  # with the most units

Row = list[str]


def heading(run: str, found: Verified) -> str:
    """Returns what the tables are of."""
    return (
        f"{printable(run)}, {printable(found.layer)}: {len(found.unit)} labelled units"
    )


def shares(found: Verified) -> list[Row]:
    """Returns the verified share of the detectors, per IoU threshold."""
    rows = [["IoU >", "detectors", "judged", "verified", "share"]]
    for threshold in found.iou_thresholds:
        one = found.share(threshold)
        counts = map(str, (one.detectors, one.judged, one.verified))
        rows.append([f"{threshold:g}", *counts, f"{one.share:.0%}" * (one.judged > 0)])
    return rows


def concepts(found: Verified) -> list[Row]:
    """Returns the concepts of most units, with medians over their units."""
    units = collections.Counter(zip(found.concept, found.category, strict=True))
    rows = [
        [
            *("concept", "category", "how", "images"),
            *("units", "verified", "AUC", "control"),
        ]
    ]
    names = np.array(found.concept, dtype=object), np.array(found.category, object)
    for (concept, category), count in units.most_common(_CONCEPTS):
        here = np.flatnonzero((names[0] == concept) & (names[1] == category))
        ways = [found.way[row] for row in here]
        rows.append(
            [
                concept,
                category,
                max(ways, key=ways.count),
                str(int(np.median(found.images[here]))),
                str(count),
                str(int(found.verified[here].sum())),
                _median(found.auc[here]),
                _median(found.control[here]),
            ]
        )
    return rows


def notes(found: Verified) -> list[str]:
    """Returns what the numbers mean, and why units were not judged."""
    lines = [
        "Medians of units. A unit is verified if its AUC's 95 % interval is above 0.5, "
        "and above the\nAUC of the control (docs/verify.md)."
    ]
    why = collections.Counter(found.note[row] for row in np.flatnonzero(~found.judged))
    if why:
        text = "; ".join(f"{printable(note)} ({n})" for note, n in why.most_common(5))
        lines.append(f"Not judged: {text}.")
    return lines


def _median(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    return f"{np.median(values):.2f}" if len(values) else ""
