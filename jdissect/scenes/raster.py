"""Determines the visible surface at each point: polygons and ellipses, in paint order.

Shapes are cut into spans, one per row of a grid twice as fine as the picture; then all
spans are painted at once, the last one winning. A point belongs to a shape if its
center does, so that shapes with a common edge neither overlap nor leave a gap. It uses
only elementwise float64 operations (IEEE 754 fixes their results), and sums only
integers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from jdissect.scenes.world import SIDE

FINE = 2 * SIDE  # points per side of the grid


class Polygon(NamedTuple):
    """A convex polygon; `corners` are (x, y) in pixels, in either direction."""

    surface: int
    corners: Sequence[tuple[float, float]]


class Ellipse(NamedTuple):
    """Points p with (p - center)^T M^-1 (p - center) <= 1, in pixels.

    M = a a^T + b b^T for the half axes a and b.
    """

    surface: int
    x: float
    y: float
    xx: float
    xy: float
    yy: float


class View(NamedTuple):
    """The part of the stage that a picture shows.

    Attributes:
        zoom: magnification.
        left, top: position of the picture's corner, in pixels as drawn.
    """

    zoom: float = 1.0
    left: float = 0.0
    top: float = 0.0


WHOLE = View()


class _Spans(NamedTuple):
    """Runs of points [start, end) in a row, each of one surface."""

    surface: Int[np.ndarray, " span"]
    row: Int[np.ndarray, " span"]
    start: Int[np.ndarray, " span"]
    end: Int[np.ndarray, " span"]


def paint(
    polygons: Sequence[Polygon], ellipses: Sequence[Ellipse], view: View = WHOLE
) -> Int32[np.ndarray, "fine fine"]:
    """Returns the highest surface number covering each point; 0 where none does."""
    spans = [_polygon_spans(group, view) for group in _by_corners(polygons)]
    if ellipses:
        spans.append(_ellipse_spans(ellipses, view))
    merged = _Spans(*(np.concatenate(columns) for columns in zip(*spans, strict=True)))
    order = np.argsort(merged.surface, kind="stable")
    seen = np.zeros(FINE * FINE, np.int32)
    place, which = _points(_Spans(*(column[order] for column in merged)))
    # For repeated indices, NumPy keeps the last value.
    seen[place] = merged.surface[order][which]
    return seen.reshape(FINE, FINE)


def shadow(
    seen: Int32[np.ndarray, "fine fine"],
    ellipses: Sequence[Ellipse],
    strengths: Sequence[float],
    view: View = WHOLE,
) -> Float32[np.ndarray, "fine fine"]:
    """Returns the share of light kept from each point, 0 .. 1, by the strongest shadow.

    Args:
        seen: result of `paint`.
        ellipses: shadows; each falls on surfaces of lower numbers than its own.
        strengths: one per ellipse.
        view: view passed to `paint`.
    """
    dark = np.zeros(FINE * FINE, np.float32)
    if ellipses:
        order = sorted(range(len(ellipses)), key=lambda place: strengths[place])
        numbered = [
            ellipses[old]._replace(surface=new) for new, old in enumerate(order)
        ]
        spans = _ellipse_spans(numbered, view)
        place, which = _points(spans)
        shade = spans.surface[which]
        falls_on = np.array([ellipses[old].surface for old in order])
        lit = seen.ravel()[place] < falls_on[shade]
        dark[place[lit]] = np.array([strengths[old] for old in order])[shade[lit]]
    return dark.reshape(FINE, FINE)


def _by_corners(polygons: Sequence[Polygon]) -> list[list[Polygon]]:
    """Groups polygons by number of corners: 4, or the largest number."""
    few = [polygon for polygon in polygons if len(polygon.corners) <= 4]
    many = [polygon for polygon in polygons if len(polygon.corners) > 4]
    return [group for group in (few, many) if group]


def _polygon_spans(polygons: Sequence[Polygon], view: View) -> _Spans:
    most = max(len(polygon.corners) for polygon in polygons)
    corners = np.array(
        [[*corners, *[corners[-1]] * (most - len(corners))] for _, corners in polygons],
        dtype=np.float64,
    )
    x, y = _seen(corners[..., 0], corners[..., 1], view)
    which, row = _rows(y.min(axis=1), y.max(axis=1))
    next_x, next_y = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    rise = next_y - y
    slope = (next_x - x) / np.where(rise == 0, 1, rise)
    middle = (row + 0.5)[:, None]
    y_here, next_here = y[which], next_y[which]
    crossed = (y_here <= middle) != (next_here <= middle)
    at = x[which] + (middle - y_here) * slope[which]
    left = np.where(crossed, at, np.inf).min(axis=1)
    right = np.where(crossed, at, -np.inf).max(axis=1)
    surface = np.array([polygon.surface for polygon in polygons])[which]
    return _cut(surface, row, left, right)


def _ellipse_spans(ellipses: Sequence[Ellipse], view: View) -> _Spans:
    surface, x, y, xx, xy, yy = np.array(ellipses, dtype=np.float64).T
    x, y = _seen(x, y, view)
    square = 4 * view.zoom * view.zoom
    xx, xy, yy = square * xx, square * xy, np.maximum(square * yy, 1e-6)
    reach = np.sqrt(yy)
    which, row = _rows(y - reach, y + reach)
    down = row + 0.5 - y[which]
    slant = (xy / yy)[which] * down
    width = np.maximum(xx - xy * xy / yy, 0) / yy
    half = np.sqrt(np.maximum(width[which] * (yy[which] - down * down), 0))
    middle = x[which] + slant
    return _cut(surface.astype(np.int64)[which], row, middle - half, middle + half)


def _seen(
    x: Float[np.ndarray, "*shape"], y: Float[np.ndarray, "*shape"], view: View
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Converts points as drawn to points of the fine grid."""
    scale = 2 * view.zoom
    return (x - view.left) * scale, (y - view.top) * scale


def _rows(
    top: Float[np.ndarray, " shape"], bottom: Float[np.ndarray, " shape"]
) -> tuple[Int[np.ndarray, " span"], Int[np.ndarray, " span"]]:
    """Returns all (shape, row) whose row's middle lies between top and bottom."""
    first = np.clip(np.ceil(top - 0.5), 0, FINE).astype(np.int64)
    last = np.clip(np.ceil(bottom - 0.5), 0, FINE).astype(np.int64)
    count = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return which, np.arange(len(which)) + (first - before)[which]


def _cut(surface, row, left, right) -> _Spans:
    start = np.clip(np.ceil(left - 0.5), 0, FINE).astype(np.int64)
    end = np.clip(np.ceil(right - 0.5), 0, FINE).astype(np.int64)
    return _Spans(surface, row, start, np.maximum(end, start))


def _points(
    spans: _Spans,
) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " point"]]:
    """Returns (index into the flat grid, span) of every point, span by span."""
    length = spans.end - spans.start
    which = np.repeat(np.arange(len(length), dtype=np.int32), length)
    before = np.cumsum(length) - length
    offset = (spans.row * FINE + spans.start - before).astype(np.int32)
    return np.arange(len(which), dtype=np.int32) + offset[which], which
