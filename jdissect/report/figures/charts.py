"""Charts of the unique concepts of several networks, with their uncertainty.

Every function takes plain numbers and returns a figure, which `drawing.write` writes to
files. All charts are readable without color.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jdissect.report.figures import drawing, palette
from jdissect.report.figures.palette import FAINT, INK, PAPER
from jdissect.report.figures.stacked_bars import Bar, Interval, concepts_by_category

__all__ = ["Bar", "Difference", "Line", "concepts_by_category", "curve", "differences"]


@dataclasses.dataclass(frozen=True)
class Line:
    """A model's unique concepts by IoU threshold, with a band."""

    model: str
    values: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A model's unique concepts minus the baseline's."""

    model: str
    value: float
    interval: Interval | None = None


@drawing.style()
def curve(
    thresholds: Sequence[float],
    lines: Sequence[Line],
    *,
    marked: Sequence[float] = (),
    title: str = "",
    note: str = "",
    band_name: str = "95 % interval",
) -> Figure:
    """Plots unique concepts over the IoU threshold, one line per model.

    Args:
      thresholds: IoU thresholds, ascending.
      lines: one per model, with one value per threshold.
      marked: thresholds to mark with a thin vertical line.
      title, note: see `concepts_by_category`.
      band_name: meaning of the shaded bands.

    Raises:
      ValueError: there are no lines, or values and thresholds differ in number.
    """
    if not lines or any(len(line.values) != len(thresholds) for line in lines):
        raise ValueError("each threshold needs a value, and there must be a line")
    figure = drawing.new_figure(6.4, max(3.6, 0.8 + 0.17 * len(lines)))
    axes = figure.add_subplot()
    handles: list[tuple[Artist, str]] = []
    names = drawing.short_names([line.model for line in lines])
    styles = palette.strokes(len(lines))
    every = max(1, len(thresholds) // 8)
    for place, (line, name, style) in enumerate(zip(lines, names, styles, strict=True)):
        if line.low is not None and line.high is not None:
            axes.fill_between(
                thresholds, line.low, line.high, color=style.color, alpha=0.13, lw=0
            )
        (handle,) = axes.plot(
            *(thresholds, line.values),
            color=style.color,
            linestyle=style.dashes,
            linewidth=1.2,
            marker=style.marker,
            markersize=4,
            markeredgewidth=0.8,
            # Every other model has hollow markers, so that overlapping ones show.
            markerfacecolor=PAPER if place % 2 else style.color,
            markevery=(place * every // max(len(lines), 1), every),
            zorder=3,
            clip_on=False,  # shows markers at 0 in full
        )
        handles.append((handle, name))
    if any(line.low is not None for line in lines):
        handles.append((Patch(facecolor=FAINT, alpha=0.3), f"band: {band_name}"))
    for threshold in marked:
        axes.axvline(threshold, color=FAINT, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel("unique concepts")
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    axes.margins(x=0.01)
    drawing.count_ticks(axes.yaxis)
    drawing.rule(axes, horizontal=True)
    figure.legend(
        *zip(*handles, strict=True), loc="outside right upper", handlelength=4
    )
    drawing.write_title(figure, title)
    drawing.write_note(figure, note)
    return figure


@drawing.style()
def differences(
    panels: Mapping[float, Sequence[Difference]],
    *,
    baseline: str,
    title: str = "",
    note: str = "",
    interval_name: str = "95 % interval",
) -> Figure:
    """Plots paired differences of unique concepts to a baseline, with intervals.

    Args:
      panels: {IoU threshold: one difference per model}, the same models in each.
      baseline: name of the model that is subtracted.
      title, note, interval_name: see `concepts_by_category`.

    Raises:
      ValueError: see `concepts_by_category`.
    """
    models = drawing.same_models(panels)
    figure = drawing.new_figure(
        max(4.4, 1.5 + 1.9 * len(panels)), 1.5 + 0.26 * len(models)
    )
    grid = np.atleast_1d(figure.subplots(1, len(panels), sharex=True, sharey=True))
    for axes, (threshold, row) in zip(grid, panels.items(), strict=True):
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, one in enumerate(row):
            low, high = one.interval or (one.value, one.value)
            axes.plot((low, high), (place, place), color=INK, linewidth=1.1)
            clear = one.interval is not None and not low <= 0 <= high
            face = INK if clear or one.interval is None else PAPER
            axes.plot(one.value, place, "o", ms=5, mfc=face, mec=INK, mew=0.9)
            axes.annotate(
                _signed(one.value),
                (one.value, place),
                (0, 4.5),
                textcoords="offset points",
                ha="center",
                fontsize=drawing.SMALL,
                bbox={"facecolor": PAPER, "pad": 0.2, "lw": 0},
            )
        axes.set_title(f"IoU > {threshold:g}")
        axes.set_yticks(range(len(models)), drawing.short_names(models))
        axes.set_ylim(len(models) - 0.4, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.1)
        axes.spines["left"].set_visible(False)
        drawing.count_ticks(axes.xaxis)
        drawing.rule(axes, horizontal=False)
    low, high = grid[0].get_xlim()
    grid[0].set_xlim(min(-1, low), max(1, high))
    grid[len(grid) // 2].set_xlabel(
        f"unique concepts\nminus those of {drawing.shortened(baseline, 30)}"
    )
    if any(one.interval for row in panels.values() for one in row):
        line: dict[str, Any] = {"color": INK, "lw": 1.1, "marker": "o", "ms": 5}
        handles = [
            (Line2D([], [], **line), f"{interval_name} without 0"),
            (Line2D([], [], **line, mfc=PAPER), f"{interval_name} with 0"),
        ]
        drawing.legend_above(figure, handles, title)
    else:
        drawing.write_title(figure, title)
    drawing.write_note(figure, note)
    return figure


def _signed(value: float) -> str:
    text = f"{value:+.0f}" if value == round(value) else f"{value:+.1f}"
    return text.replace("-", "−") if value else "0"
