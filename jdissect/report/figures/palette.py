"""Colors, hatches and line styles of the figures.

The paper's four categories have colors of increasing lightness, 20 units of L* apart,
so that a bar stacked in their order is readable in a black-and-white print and with any
of the three types of color blindness (Machado et al. 2009); the numbers are in
tests/report/figures/test_palette.py. Further categories also have hatches. Lines
differ by dashes and markers; their colors only help.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from jdissect.base.concepts import PAPER_CATEGORIES

INK, FAINT, PAPER = "#1a1a1a", "#8c8c8c", "#ffffff"
OUTLINE = "#ffe14d"  # of masks on darkened photographs


@dataclasses.dataclass(frozen=True)
class Fill:
    """Fill of a category: a color '#rrggbb', and a matplotlib hatch or ''."""

    color: str
    hatch: str = ""

    @property
    def ink(self) -> str:
        """Black or white, whichever is more readable on the fill."""
        red, green, blue = (int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return INK if light > 0.2 else PAPER


@dataclasses.dataclass(frozen=True)
class Stroke:
    """Style of a line: color, matplotlib's dashes and marker."""

    color: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str


_PAPER = tuple(map(Fill, ("#24386e", "#c0502a", "#6ab0c9", "#f5e39a")))
_OTHER = ("#873d4c", "#bc7b77", "#fcacaf")
_HATCHES = ("////", "....", "\\\\\\\\", "xxxx")

_LINES = ("#1a1a1a", "#c0502a", "#2f6fb0", "#7a6a00", "#8a3f8f", "#1f7a66")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
_MARKERS = "osD^vPX*<>hp"


def ordered(categories: Iterable[str]) -> tuple[str, ...]:
    """Returns the paper's categories in its order, then the others as they come."""
    present = tuple(dict.fromkeys(categories))
    first = tuple(name for name in PAPER_CATEGORIES if name in present)
    return (*first, *(name for name in present if name not in PAPER_CATEGORIES))


def fills(categories: Sequence[str]) -> dict[str, Fill]:
    """Returns a fill for each category; the paper's categories have fixed ones.

    All are different up to sixteen categories, four times the paper's number.
    """
    styles = dict(zip(PAPER_CATEGORIES, _PAPER, strict=True))
    others = [name for name in categories if name not in styles]
    for place, name in enumerate(others):
        color = _OTHER[place % len(_OTHER)]
        styles[name] = Fill(color, _HATCHES[place % len(_HATCHES)])
    return {name: styles[name] for name in categories}


def strokes(count: int) -> list[Stroke]:
    """Returns line styles; dashes and markers are distinct for up to twelve lines."""
    return [
        Stroke(
            _LINES[place % len(_LINES)],
            _DASHES[place % len(_DASHES)],
            _MARKERS[place % len(_MARKERS)],
        )
        for place in range(count)
    ]
