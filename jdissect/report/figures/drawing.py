"""Common style of all figures, and reproducible SVG and PNG files.

An SVG keeps text as text, so that it is searchable and takes the document's font; no
file contains a date. Text is shown literally: a `$` or `_` in the name of a model or
concept has no meaning.
"""

import contextlib
import io
import os
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.report.figures.palette import FAINT, INK

DPI = 200  # of PNG files
_NOTEBOOK_DPI = 120
SMALL, NORMAL, LARGE = 6.5, 7.5, 8.5  # text sizes in points
_SETTINGS: dict[Any, Any] = {  # matplotlib's own type lists all keys
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": NORMAL,
    "axes.titlesize": LARGE,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": NORMAL,
    "ytick.labelsize": NORMAL,
    "legend.fontsize": NORMAL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jdissect",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Gives figures the same look whatever the user's matplotlibrc says."""
    with matplotlib.style.context("default"), matplotlib.rc_context(_SETTINGS):
        yield


class _Shown(Figure):
    """A figure that a notebook shows, also without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with style():
            self.savefig(file, format="png", dpi=_NOTEBOOK_DPI)
        return file.getvalue()


def new_figure(
    width: float,
    height: float,
    layout: Literal["constrained", "none"] = "constrained",
) -> Figure:
    """Returns an empty figure of the given size in inches.

    Args:
      width, height: size in inches.
      layout: 'constrained' arranges the parts automatically; 'none' leaves them where
        they are put, as `place` does.
    """
    # Its type knows no 'none'.
    figure = _Shown((width, height), layout=layout)  # type: ignore[arg-type]
    FigureCanvasAgg(figure)
    return figure


def write_title(figure: Figure, title: str) -> None:
    """Writes a title above everything, unless it is ''."""
    if title:
        text = _wrapped(figure, title, 3)
        figure.suptitle(text, fontsize=LARGE, fontweight="bold")


def write_note(figure: Figure, note: str) -> None:
    """Writes a note below everything, unless it is ''."""
    if note:
        figure.supxlabel(_wrapped(figure, note, 6), fontsize=NORMAL, style="italic")


def _wrapped(figure: Figure, text: str, lines: int) -> str:
    width = round(figure.get_figwidth() * 72 / (0.62 * LARGE))  # characters
    return textwrap.fill(shortened(text, lines * width), width)


def svg(figure: Figure) -> bytes:
    """Returns the figure as an SVG file."""
    file = io.BytesIO()
    with style():
        # The resolution applies to photographs in the figure.
        metadata = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", dpi=DPI, metadata=metadata)
    return file.getvalue()


def png(figure: Figure) -> bytes:
    """Returns the figure as a PNG file."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def write(figure: Figure, folder: str | os.PathLike, name: str) -> list[paths.Path]:
    """Writes NAME.svg and NAME.png, each atomically.

    Raises:
      OSError, UserError: see `atomic_files.write_whole`.
    """
    folder = paths.to_path(folder)
    files = {folder / f"{name}.svg": svg(figure), folder / f"{name}.png": png(figure)}
    paths.make_folder(folder)
    for path, content in files.items():
        write_whole(path, content)
    return list(files)


def shortened(text: str, limit: int) -> str:
    """Returns one printable line of at most `limit` characters, cut in the middle."""
    printable = (
        " " if unicodedata.category(c)[0] in "CZ" else c for c in str(text).strip()
    )
    text = " ".join("".join(printable).split())
    if len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end].rstrip()}…{text[len(text) - end :].lstrip()}"


def short_names(names: Sequence[str], limit: int = 22) -> list[str]:
    """Shortens names for a figure; equal results get their position appended."""
    short = [shortened(name, limit) for name in names]
    return [
        f"{shortened(name, limit - 4)} ({place})" if short.count(name) > 1 else name
        for place, name in enumerate(short, 1)
    ]


def rule(axes, horizontal: bool) -> None:
    """Draws thin lines behind the data, along the axis to read values from."""
    axes.grid(axis="y" if horizontal else "x", color=FAINT, alpha=0.35, linewidth=0.4)
    axes.set_axisbelow(True)


def same_models(panels: Mapping[float, Sequence]) -> list[str]:
    """Returns the names of the models, which must be the same in each panel.

    Raises:
      ValueError: they differ, or there are none.
    """
    models = [[one.model for one in row] for row in panels.values()]
    if not models or not models[0] or any(row != models[0] for row in models):
        raise ValueError("all panels need the same models, at least one")
    return models[0]


def legend_above(figure: Figure, handles: list[tuple], title: str) -> None:
    """Adds a legend between title and panels, in as few rows as possible."""
    objects, texts = zip(*handles, strict=True)
    labels = [shortened(text, 34) for text in texts]
    widths = [0.45 + 0.06 * len(label) for label in labels]  # inches
    columns = len(labels)
    if sum(widths) > figure.get_figwidth():
        fitting = max(1, int(figure.get_figwidth() / max(widths)))
        columns = -(-len(labels) // -(-len(labels) // fitting))
    legend = figure.legend(
        *(objects, labels),
        loc="outside upper center",
        ncols=columns,
        handlelength=1.6,
        columnspacing=1.4,
        title=_wrapped(figure, title, 3),
        title_fontproperties={"size": LARGE, "weight": "bold"},
    )
    legend.get_title().set_multialignment("center")


def count_ticks(axis) -> None:
    """Sets ticks at a few whole numbers."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))


def place(figure: Figure, left: float, top: float, width: float, height: float):
    """Adds axes without ticks for a picture, positioned from the top left in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes(
        (left / across, 1 - (top + height) / up, width / across, height / up)
    )
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def write_at(figure: Figure, left: float, top: float, text: str, **style) -> None:
    """Writes text with its baseline positioned from the top left in inches."""
    across, up = figure.get_size_inches()
    figure.text(left / across, 1 - top / up, text, **style)
