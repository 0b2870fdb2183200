"""Draws stacked bars of unique concepts by category: Figure 3 of the study."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jdissect.report.figures import drawing, palette
from jdissect.report.figures.palette import INK, PAPER

Interval = tuple[float, float]
TOTAL = "total"  # key of the sum in `Result.unique_concepts`; not a category

_BAR = 0.84  # width of a bar; bars are 1 apart
_WIDEST = 24  # maximum number of bars side by side, in all panels together
# Inches: height of a panel's data, side by side and stacked; width of a letter.
_HIGH, _LOW, _LETTER = 2.2, 1.5, 0.058
_CROSS: dict[str, Any] = {
    "marker": "D",
    "markersize": 3.6,
    "mfc": PAPER,
    "mec": INK,
    "mew": 0.8,
}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A model's unique concepts at one IoU threshold.

    Attributes:
      model: name of the model.
      counts: {category: unique concepts}; a 'total' in it is ignored.
      interval: interval of the total; None if not known.
      cross_fitted: the total if concepts are chosen and judged on different images.
      cross_interval: interval of `cross_fitted`.
      error: top-1 error in percent.
    """

    model: str
    counts: Mapping[str, int]
    interval: Interval | None = None
    cross_fitted: float | None = None
    cross_interval: Interval | None = None
    error: float | None = None

    @property
    def total(self) -> int:
        """Sum over all categories."""
        return sum(n for category, n in self.counts.items() if category != TOTAL)


@drawing.style()
def concepts_by_category(
    panels: Mapping[float, Sequence[Bar]],
    *,
    title: str = "",
    note: str = "",
    interval_name: str = "95 % interval",
) -> Figure:
    """Draws unique concepts by category: a bar per model, a panel per IoU threshold.

    Args:
      panels: {IoU threshold: one bar per model}, with the same models in each.
      title: text above the figure.
      note: line below it, for what a reader must know.
      interval_name: meaning of the intervals.

    Raises:
      ValueError: no panels, models or categories, or panels of different models.

    Source: Figure 3 of the study.
    """
    models = drawing.same_models(panels)
    bars = [bar for row in panels.values() for bar in row]
    categories = palette.ordered(c for bar in bars for c in bar.counts if c != TOTAL)
    if not categories:
        raise ValueError("bars need counts of categories")
    plan = _plan(len(panels), next(iter(panels.values())))
    figure = drawing.new_figure(plan.width, plan.height)
    grid = figure.subplots(
        *((1, len(panels)) if plan.beside else (len(panels), 1)),
        sharex=not plan.beside,
        sharey=True,
        squeeze=False,
    ).ravel()
    top = max(1, *(max(_tops(bar)) for bar in bars))
    spare = max(
        0.0, 1.3 / len(panels) / plan.room - len(models) / 2
    )  # few bars stay narrow
    # The value whose bar is as tall as its number's text.
    smallest = top * drawing.SMALL / 72 / (_HIGH if plan.beside else _LOW)
    for axes, (threshold, row) in zip(grid, panels.items(), strict=True):
        _stack(axes, row, palette.fills(categories), smallest)
        for place, bar in enumerate(row):
            _whiskers(axes, place, bar)
        axes.set_title(f"IoU > {threshold:g}")
        axes.set_xlim(-0.6 - spare, len(models) - 0.4 + spare)
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1.1 * top)
        drawing.count_ticks(axes.yaxis)
        drawing.rule(axes, horizontal=True)
        if plan.beside or axes is grid[-1]:
            _write_names(axes, row, plan.angle)
        if not plan.beside or axes is grid[0]:
            axes.set_ylabel("unique concepts")
    drawing.legend_above(figure, _bar_legend(categories, bars, interval_name), title)
    drawing.write_note(figure, note)
    return figure


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Positions of panels and names, in inches.

    Attributes:
      beside: whether panels are side by side rather than stacked.
      room: width available per bar.
      angle: rotation of the names in degrees.
      width, height: size of the figure.
    """

    beside: bool
    room: float
    angle: int
    width: float
    height: float


def _plan(panels: int, row: Sequence[Bar]) -> _Layout:
    bars = panels * len(row)
    longest = max(map(len, drawing.short_names([bar.model for bar in row])))
    lines = 1 + any(bar.error is not None for bar in row)
    # Slanted names are written only once.
    beside = bars <= _WIDEST and (len(row) <= 5 or longest <= 14)
    room = max(0.4, min(1.0, 7.0 / bars)) if beside else 0.55
    length = _LETTER * max(longest, 13 * (lines - 1))
    angle = 0
    if length > room:
        angle = 40 if room * math.sin(math.radians(40)) > 0.14 * lines + 0.02 else 60
    across, down = (length * f(math.radians(angle)) for f in (math.cos, math.sin))
    across = across - room / 2 if angle else 0.0
    down += 0.14 * lines
    if beside:
        width, height = room * bars + panels * max(0.1, across), _HIGH
    else:
        width, height = room * len(row) + across, panels * (_LOW + 0.3)
    return _Layout(beside, room, angle, max(3.6, 0.6 + width), 0.8 + height + down)


def _write_names(axes, row: Sequence[Bar], angle: int) -> None:
    """Writes the models' names, with the error in a second line."""
    lines = drawing.short_names([bar.model for bar in row])
    lines = [
        line if bar.error is None else f"{line}\nerror {bar.error:.2f} %"
        for line, bar in zip(lines, row, strict=True)
    ]
    how = {"rotation": angle, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(row)), lines, **(how if angle else {}))


def _tops(bar: Bar) -> tuple[float, ...]:
    """Returns every value that a bar reaches up to."""
    ends = (bar.interval or ())[1:] + (bar.cross_interval or ())[1:]
    return (bar.total, bar.cross_fitted or 0, *ends)


def _stack(axes, row: Sequence[Bar], fills, smallest: float) -> None:
    """Draws the stacked bars with their numbers."""
    shift = -0.2 if any(_estimated(bar) for bar in row) else 0.0
    floor = np.zeros(len(row))
    places = np.arange(len(row))
    for category, fill in fills.items():
        counts = np.array([bar.counts.get(category, 0) for bar in row])
        axes.bar(
            *(places, counts, _BAR, floor),
            color=fill.color,
            hatch=fill.hatch,
            edgecolor=INK,
            linewidth=0.5,
        )
        for place in np.flatnonzero(counts >= smallest).tolist():
            height = floor[place] + counts[place] / 2
            style = {"fontsize": drawing.SMALL, "ha": "center", "va": "center"}
            if fill.hatch:
                style["bbox"] = {"facecolor": fill.color, "pad": 0.6, "lw": 0}
            text = f"{counts[place]:g}"
            axes.text(place + shift, height, text, color=fill.ink, **style)
        floor += counts
    for place, bar in enumerate(row):
        axes.annotate(
            f"{bar.total:g}",
            (place, max(_tops(bar))),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )


def _estimated(bar: Bar) -> bool:
    return bar.interval is not None or bar.cross_fitted is not None


def _whiskers(axes, place: int, bar: Bar) -> None:
    """Draws intervals, with a white border that shows on dark colors."""
    for x, interval in ((0.1, bar.interval), (0.28, bar.cross_interval)):
        if interval is not None:
            for color, width in ((PAPER, 2.8), (INK, 1.0)):
                axes.plot((place + x,) * 2, interval, color=color, lw=width, zorder=4)
                for end in interval:
                    ends = (place + x - 0.06, place + x + 0.06)
                    axes.plot(ends, (end, end), color=color, lw=width, zorder=4)
    if bar.cross_fitted is not None:
        axes.plot(place + 0.28, bar.cross_fitted, **_CROSS, zorder=5)


def _bar_legend(categories, bars, interval_name: str) -> list[tuple]:
    fills = palette.fills(categories)
    handles: list[tuple[Artist, str]] = [
        (Patch(facecolor=f.color, hatch=f.hatch, edgecolor=INK, lw=0.5), name)
        for name, f in fills.items()
    ]
    if any(bar.interval for bar in bars):
        whisker = Line2D([], [], color=INK, lw=1.0, marker="|", ms=6, mew=1.0)
        handles.append((whisker, f"total: {interval_name}"))
    if any(bar.cross_fitted is not None for bar in bars):
        lines = any(bar.cross_interval for bar in bars)
        diamond = Line2D([], [], color=INK, lw=1.0 if lines else 0, **_CROSS)
        handles.append((diamond, "total, cross-fitted"))
    return handles
