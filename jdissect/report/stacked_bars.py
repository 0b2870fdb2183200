"""Stacked bars of unique concepts by category: Figure 3 of the study."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jdissect.report import drawing, palette
from jdissect.report.palette import INK, PAPER

Interval = tuple[float, float]
TOTAL = "total"  # what `Result.unique_concepts` calls the sum; not a category

_BAR = 0.84  # width of a bar; bars are 1 apart
_WIDEST = 24  # bars side by side, of all panels together
_HIGH, _LOW = 2.0, 1.5  # inches of a panel's data, side by side and one above the other
_CROSS = {"marker": "D", "markersize": 3.6, "mfc": PAPER, "mec": INK, "mew": 0.8}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A model's unique concepts at one IoU threshold.

    Attributes:
      model: its name.
      counts: {category: unique concepts}; a 'total' in it is left out.
      interval: of the total; None: not known.
      cross_fitted: the total where concepts are chosen and judged on different images.
      cross_interval: its interval.
      error: top-1 error, percent.
    """

    model: str
    counts: Mapping[str, int]
    interval: Interval | None = None
    cross_fitted: float | None = None
    cross_interval: Interval | None = None
    error: float | None = None

    @property
    def total(self) -> int:
        """Over all categories."""
        return sum(n for category, n in self.counts.items() if category != TOTAL)


@drawing.style()
def concepts_by_category(
    panels: Mapping[float, Sequence[Bar]],
    *,
    title: str = "",
    note: str = "",
    interval_name: str = "95 % interval",
) -> Figure:
    """Unique concepts by category, stacked: a bar a model, a panel an IoU threshold.

    Args:
      panels: {IoU threshold: a bar a model}, with the same models in each.
      title: above the figure.
      note: a line below it, for what a reader must know.
      interval_name: what the intervals are.

    Raises:
      ValueError: no panels or models, or panels of different models.

    Source: Figure 3 of the study.
    """
    models = drawing.same_models(panels)
    bars = [bar for row in panels.values() for bar in row]
    categories = palette.ordered(c for bar in bars for c in bar.counts if c != TOTAL)
    figure, grid, room = _layout(len(panels), len(models))
    beside = len(bars) <= _WIDEST
    top = max(1, *(max(_tops(bar)) for bar in bars))
    spare = max(0.0, 1.3 / len(panels) / room - len(models) / 2)  # few bars stay narrow
    # What is as tall as its number.
    smallest = top * drawing.SMALL / 72 / (_HIGH if beside else _LOW)
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
        if beside or axes is grid[-1]:
            _write_names(axes, row, room)
        if not beside or axes is grid[0]:
            axes.set_ylabel("unique concepts")
    drawing.legend_above(figure, _bar_legend(categories, bars, interval_name), title)
    drawing.write_note(figure, note)
    return figure


def _layout(panels: int, models: int):
    """The figure, its panels, and the room that a bar has, inches."""
    bars = panels * models
    if bars <= _WIDEST:
        room = max(0.4, min(1.0, 7.0 / bars))
        figure = drawing.new_figure(max(3.6, 0.75 + room * bars), 3.4)
        grid = figure.subplots(1, panels, sharey=True)
    else:
        room = 0.55
        figure = drawing.new_figure(
            max(5.0, 0.8 + room * models), 1.6 + _LOW * 1.25 * panels
        )
        grid = figure.subplots(panels, 1, sharex=True, sharey=True)
    return figure, np.atleast_1d(grid), room


def _write_names(axes, row: Sequence[Bar], room: float) -> None:
    """Names of the models, the error in a second line; slanted where too long."""
    lines = drawing.short_names([bar.model for bar in row])
    slanted = max(map(len, lines)) * 0.06 > room
    lines = [
        line if bar.error is None else f"{line}\nerror {bar.error:.2f} %"
        for line, bar in zip(lines, row, strict=True)
    ]
    how = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(row)), lines, **how)


def _tops(bar: Bar) -> tuple[float, ...]:
    """Everything that a bar reaches up to."""
    ends = (bar.interval or ())[1:] + (bar.cross_interval or ())[1:]
    return (bar.total, bar.cross_fitted or 0, *ends)


def _stack(axes, row: Sequence[Bar], fills, smallest: float) -> None:
    """The stacked bars with their numbers."""
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
        for place in np.flatnonzero(counts >= smallest):
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
    """Intervals, in white below so that they are seen on dark colours too."""
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
    handles = [
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
