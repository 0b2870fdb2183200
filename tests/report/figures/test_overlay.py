"""Pictures of label maps: the right colour at the right place, the right legend."""

import numpy as np
import pytest
from PIL import Image

from jdissect.report.figures import overlay

CONCEPTS = (
    ("-", "-"),
    ("wall", "object"),
    ("car", "object"),
    ("wheel", "part"),
    ("red", "color"),
    ("-", "color"),
)


@pytest.fixture
def maps():
    """A wall with a car whose lower right is a wheel; red on the left."""
    maps = np.zeros((3, 8, 8), np.int16)
    maps[0, :4], maps[0, 4:] = 1, 2
    maps[1, 6:, 6:] = 3
    maps[2, :, :4], maps[2, :, 4:] = 4, 5
    return maps


def test_panels_by_map_or_by_category(maps):
    named = overlay.panels(maps, CONCEPTS, ("objects", "parts", "color"), ("parts",))
    assert [panel.title for panel in named] == ["objects", "color"]
    np.testing.assert_array_equal(named[0].labels, maps[0])
    reordered = overlay.panels(maps, CONCEPTS, ("color", "materials", "objects"))
    assert [panel.title for panel in reordered] == ["objects", "materials", "color"]
    categories = overlay.panels(maps, CONCEPTS)
    assert [panel.title for panel in categories] == ["object", "part", "color"]
    np.testing.assert_array_equal(categories[0].labels, maps[0])
    np.testing.assert_array_equal(categories[1].labels, maps[1])
    np.testing.assert_array_equal(categories[2].labels, np.where(maps[2] == 4, 4, 0))


def test_numbers_of_one_name_are_one_entry():
    concepts = (*CONCEPTS, ("car", "object"))
    maps = np.array([[[2, 6], [1, 6]]])
    for names in ((), ("objects",)):
        panel = overlay.panels(maps, concepts, names)[0]
        np.testing.assert_array_equal(panel.labels, [[2, 2], [1, 2]])


def test_of_two_maps_of_a_category_the_first_is_shown():
    maps = np.array([[[0, 1]], [[2, 2]]])
    panel = overlay.panels(maps, CONCEPTS)[0]
    np.testing.assert_array_equal(panel.labels, [[2, 1]])


def test_draw_puts_labels_over_the_photograph(maps):
    pixels = np.full((32, 64, 3), 100, np.uint8)
    shown = overlay.panels(maps, CONCEPTS, ("objects", "parts", "color"))
    picture = np.asarray(overlay.draw(pixels, "a.jpg", shown, CONCEPTS), float)
    width, height = overlay.WIDTH, overlay.WIDTH // 2
    top = overlay.MARGIN + overlay.LINE
    assert picture.shape[1] == overlay.MARGIN + 4 * (width + overlay.MARGIN)

    def panel(place):
        left = overlay.MARGIN + place * (width + overlay.MARGIN)
        return picture[top : top + height, left : left + width]

    assert (panel(0) == 100).all()
    dimmed = 100 + 0.35 * 155
    red = 0.6 * np.array(overlay.COLORS["red"]) + 0.4 * dimmed
    np.testing.assert_allclose(
        panel(3)[:, : width // 2 - 1],
        np.broadcast_to(red, (height, width // 2 - 1, 3)),
        atol=2,
    )
    # '-' and nothing are no concepts: the dimmed photograph shows.
    np.testing.assert_allclose(panel(3)[:, width // 2 + 1 :], dimmed, atol=2)
    np.testing.assert_allclose(panel(2)[: height // 2], dimmed, atol=2)
    wheel = panel(2)[-2, -2]
    assert np.abs(wheel - dimmed).max() > 20
    walls, cars = panel(1)[: height // 2 - 1], panel(1)[height // 2 + 1 :]
    assert (
        np.ptp(walls, axis=(0, 1)).max() == 0 and np.ptp(cars, axis=(0, 1)).max() == 0
    )
    assert np.abs(walls[0, 0] - cars[0, 0]).max() > 20


def test_the_legend_lists_the_largest_first(maps):
    assert overlay._legend(maps[0], CONCEPTS) == [(1, 0.5), (2, 0.5)]
    assert overlay._legend(maps[1], CONCEPTS) == [(3, 4 / 64)]
    assert overlay._legend(maps[2], CONCEPTS) == [(4, 0.5)]
    many = np.arange(400).reshape(20, 20) % 25 + 1
    concepts = [("-", "-"), *((f"n{i}", "object") for i in range(25))]
    assert len(overlay._legend(many, concepts)) == overlay.ENTRIES


def test_a_long_name_is_shortened():
    long = "an object of a name that goes on and on and does not come to any end"
    assert overlay._font().getlength(overlay._fitting(long)) <= overlay.WIDTH
    assert overlay._fitting("wall") == "wall"


def test_every_colour_term_has_its_colour():
    concepts = [("-", "-"), *((name, "color") for name in overlay.COLORS)]
    for number, (name, _) in enumerate(concepts[1:], 1):
        assert overlay._color(number, concepts) == overlay.COLORS[name]
    assert overlay._color(1, [("-", "-"), ("red-c", "color")]) == overlay.COLORS["red"]
    assert isinstance(
        Image.new("RGB", (1, 1), overlay._color(1, CONCEPTS)), Image.Image
    )
