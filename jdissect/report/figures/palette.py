"""Colours, hatches and line styles of the figures.

The paper's four categories have colours of rising lightness, 20 units of L* apart, so
that a bar stacked in their order can be read from a black-and-white print, and with any
of the three colour blindnesses (Machado et al. 2009); the numbers are in
tests/report/figures/test_palette.py. Categories beyond them are hatched as well. Lines
are told apart by dashes and markers; their colours only help.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from jdissect.base.concepts import PAPER_CATEGORIES

INK, FAINT, PAPER = "#1a1a1a", "#8c8c8c", "#ffffff"
OUTLINE = "#ffe14d"  # of a mask on a darkened photograph


@dataclasses.dataclass(frozen=True)
class Fill:
    """How a category is drawn: a colour '#rrggbb', a hatch of matplotlib's or ''."""

    color: str
    hatch: str = ""

    @property
    def ink(self) -> str:
        """Black or white, whichever is better read on it."""
        red, green, blue = (int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return INK if light > 0.2 else PAPER


@dataclasses.dataclass(frozen=True)
class Stroke:
    """How a line is drawn: colour, matplotlib's dashes and marker."""

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
    """The paper's categories that are there in its order, then others as they come."""
    present = tuple(dict.fromkeys(categories))
    first = tuple(name for name in PAPER_CATEGORIES if name in present)
    return (*first, *(name for name in present if name not in PAPER_CATEGORIES))


def fills(categories: Sequence[str]) -> dict[str, Fill]:
    """A fill for each category; those of the paper have theirs wherever they stand.

    No two are alike up to sixteen categories, which is four times the paper's.
    """
    styles = dict(zip(PAPER_CATEGORIES, _PAPER, strict=True))
    others = [name for name in categories if name not in styles]
    for place, name in enumerate(others):
        color = _OTHER[place % len(_OTHER)]
        styles[name] = Fill(color, _HATCHES[place % len(_HATCHES)])
    return {name: styles[name] for name in categories}


def strokes(count: int) -> list[Stroke]:
    """Styles of lines; dashes and marker together differ up to twelve lines."""
    return [
        Stroke(
            _LINES[place % len(_LINES)],
            _DASHES[place % len(_DASHES)],
            _MARKERS[place % len(_MARKERS)],
        )
        for place in range(count)
    ]
