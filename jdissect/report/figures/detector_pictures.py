"""Draws the best detectors with their top images: Figure 2 of the study."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jdissect.report.figures import drawing, palette
from jdissect.results.layer_result import Result

DETECTOR = 0.04  # IoU above which a unit is a detector, as in the paper
DARKENED = 0.28  # brightness factor outside a mask

_SIDE, _GAP = 0.74, 0.05  # of a picture, in inches
_MARGIN, _BETWEEN = 0.1, 0.28  # around everything, between the blocks of categories
_HEADING, _LINE = 0.3, 0.2  # heights of a category's name and a unit's


@dataclasses.dataclass(frozen=True)
class Detector:
    """A unit and the concept it detects."""

    unit: int
    unit_name: int | str
    concept: str
    category: str
    iou: float

    @property
    def title(self) -> str:
        """Concept, unit and IoU as text."""
        concept = drawing.shortened(self.concept or "no concept", 26)
        return f"{concept} · unit {self.unit_name} · IoU {self.iou:.3f}"


@dataclasses.dataclass(frozen=True)
class Strip:
    """A detector's top images, and where it fires in them.

    A picture is None if it no longer exists; the figure then says so.
    """

    detector: Detector
    pictures: Sequence[UInt8[np.ndarray, "height width 3"] | None]
    masks: Sequence[Bool[np.ndarray, "mask_height mask_width"]]


def best_detectors(
    result: Result, per_category: int, threshold: float = DETECTOR
) -> dict[str, list[Detector]]:
    """Returns the units of highest IoU by category, each for another concept.

    Args:
      result: result of a layer.
      per_category: maximum number per category; ties go to the lower unit.
      threshold: IoU that they must exceed.

    Returns:
      {category: detectors}, the paper's categories first; empty ones are left out.
    """
    found: dict[str, list[Detector]] = {}
    seen = set()
    for unit in np.argsort(-result.best_iou, kind="stable"):
        column = int(result.best_concept[unit])
        if not result.best_iou[unit] > threshold or column in seen:
            continue
        seen.add(column)
        category = result.categories[column]
        those = found.setdefault(category, [])
        if len(those) < per_category:
            those.append(of_unit(result, int(unit)))
    return {category: found[category] for category in palette.ordered(found)}


def of_unit(result: Result, unit: int) -> Detector:
    """Returns a unit with its concept, whatever its IoU; '' for no concept."""
    column = int(result.best_concept[unit])
    iou, name = float(result.best_iou[unit]), result.unit_names[unit].item()
    if column < 0:
        return Detector(unit, name, "", "", iou)
    concept, category = result.concepts[column], result.categories[column]
    return Detector(unit, name, concept, category, iou)


def masked(
    picture: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "mask_height mask_width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Darkens a picture outside a mask, whose grid covers the same area."""
    rows, columns = (
        (2 * np.arange(size) + 1) * grid // (2 * size)
        for size, grid in zip(picture.shape, mask.shape, strict=False)
    )
    light = np.where(mask[rows][:, columns, None], 1.0, DARKENED)
    return np.round(picture * light).astype(np.uint8)


def outline(
    mask: Bool[np.ndarray, "height width"],
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns the border of a mask as lines ((x, y), (x, y)) between pixel corners.

    The border of the picture is not part of it.
    """
    lines = []
    for flip, plane in ((False, mask), (True, mask.T)):
        edges = plane[1:] != plane[:-1]  # between two rows, or columns
        for y, row in enumerate(edges, 1):
            ends = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
            for start, end in ends.reshape(-1, 2).tolist():
                line = ((y, start), (y, end)) if flip else ((start, y), (end, y))
                lines.append(line)
    return lines


@drawing.style()
def draw(blocks: Mapping[str, Sequence[Strip]], title: str = "") -> Figure:
    """Draws one block per category, with one row per detector.

    Args:
      blocks: {category: its detectors}; pictures of one size.
      title: text above the figure.
    """
    across = 2 if len(blocks) > 1 else 1
    strips = [strip for block in blocks.values() for strip in block]
    most = max(len(strip.pictures) for strip in strips)
    there = (p.shape for strip in strips for p in strip.pictures if p is not None)
    shape = next(there, (1, 1))
    height = _SIDE * shape[0] / shape[1]
    block_width = max(most * (_SIDE + _GAP) - _GAP, 2.6)
    rows = [list(blocks)[i : i + across] for i in range(0, len(blocks), across)]
    tallest = [max(len(blocks[category]) for category in row) for row in rows]
    above = 0.3 if title else 0.0
    figure = drawing.new_figure(
        2 * _MARGIN + across * (block_width + _BETWEEN) - _BETWEEN,
        above + _MARGIN + sum(_HEADING + n * (_LINE + height + _GAP) for n in tallest),
        layout="none",
    )
    if title:
        text = drawing.shortened(title, 110)
        drawing.write_at(figure, _MARGIN, 0.22, text, fontsize=drawing.LARGE)
    top = above
    for row, count in zip(rows, tallest, strict=True):
        for place, category in enumerate(row):
            left = _MARGIN + place * (block_width + _BETWEEN)
            name = drawing.shortened(category, 30)
            style = {"fontsize": drawing.LARGE + 1, "fontweight": "bold"}
            drawing.write_at(figure, left, top + _HEADING - 0.06, name, **style)
            for number, strip in enumerate(blocks[category]):
                below = top + _HEADING + number * (_LINE + height + _GAP)
                _draw_strip(figure, strip, left, below, height)
        top += _HEADING + count * (_LINE + height + _GAP)
    return figure


def _draw_strip(figure, strip: Strip, left: float, top: float, height: float) -> None:
    drawing.write_at(figure, left, top + _LINE - 0.06, strip.detector.title)
    pairs = zip(strip.pictures, strip.masks, strict=True)
    for place, (picture, mask) in enumerate(pairs):
        axes = drawing.place(
            figure, left + place * (_SIDE + _GAP), top + _LINE, _SIDE, height
        )
        if picture is None:
            axes.set_facecolor(palette.FAINT)
            axes.text(0.5, 0.5, "not found", ha="center", va="center")
            continue
        rows, columns = mask.shape
        extent = (0, columns, rows, 0)
        axes.imshow(masked(picture, mask), extent=extent, aspect="auto")
        axes.add_collection(
            LineCollection(outline(mask), colors=palette.OUTLINE, linewidths=0.7)
        )
        axes.set(xlim=extent[:2], ylim=extent[2:])
