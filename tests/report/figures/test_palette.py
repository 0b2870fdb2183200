"""Colours that everybody can tell apart, also on a black-and-white print."""

import itertools

import pytest

from jdissect.base.concepts import PAPER_CATEGORIES
from jdissect.report.figures import palette
from tests.report.color_vision import MACHADO, VISIONS, ciede2000, lab

SEVEN = (*PAPER_CATEGORIES, "scene", "texture", "action")


def nearest(colors, vision):
    """The smallest difference of two of them."""
    seen = [lab(color, vision) for color in colors]
    return min(ciede2000(*pair) for pair in itertools.combinations(seen, 2))


def lightness(colors):
    return [lab(color)[0] for color in colors]


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [  # Sharma, Wu & Dalal 2005, table 1
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_the_measure_is_the_published_one(one, other, difference):
    assert ciede2000(one, other) == pytest.approx(difference, abs=5e-5)


def test_the_simulation_keeps_greys_and_takes_colours():
    for vision in MACHADO:
        assert ciede2000(lab("#808080"), lab("#808080", vision)) < 0.1
    red, green = "#c05000", "#707800"
    for vision in ("protanopia", "deuteranopia"):
        seen = ciede2000(lab(red, vision), lab(green, vision))
        assert seen < 0.5 * ciede2000(lab(red), lab(green))


@pytest.mark.parametrize("vision", VISIONS)
def test_categories_are_told_apart(vision):
    fills = palette.fills(SEVEN)
    colors = [fills[name].color for name in SEVEN]
    assert nearest(colors[:4], vision) > 28  # the paper's
    assert nearest(colors, vision) > 12


def test_categories_are_told_apart_without_colours():
    levels = lightness(fill.color for fill in palette.fills(SEVEN).values())
    steps = [abs(a - b) for a, b in itertools.pairwise(levels)]
    assert min(steps) > 18  # neighbours in a stack
    # Any two, as one between them may be absent: the paper's by lightness alone.
    paper = itertools.combinations(levels[:4], 2)
    assert min(abs(a - b) for a, b in paper) > 18
    assert min(abs(a - b) for a, b in itertools.combinations(levels, 2)) > 9
    assert levels[:4] == sorted(levels[:4])


def test_text_is_read_on_every_fill():
    for fill in palette.fills(SEVEN).values():
        assert abs(lab(fill.color)[0] - lab(fill.ink)[0]) > 40


def test_sixteen_categories_have_sixteen_fills():
    names = [*PAPER_CATEGORIES, *(f"other {n}" for n in range(12))]
    fills = palette.fills(names)
    assert len(set(fills.values())) == 16
    assert len(palette.fills([f"{n}" for n in range(40)])) == 40


def test_the_papers_categories_come_first():
    given = ["texture", "color", "object", "scene", "object"]
    assert palette.ordered(given) == ("object", "color", "texture", "scene")
    # and look the same whichever others there are
    assert palette.fills(["color"])["color"] == palette.fills(SEVEN)["color"]


def test_lines_differ_without_colours():
    strokes = palette.strokes(12)
    assert len({(stroke.dashes, stroke.marker) for stroke in strokes}) == 12
    assert len(palette.strokes(30)) == 30
    assert max(lightness(stroke.color for stroke in strokes)) < 60  # dark on white
