"""What a command prints of a result, and what it says of a result that tells little."""

import numpy as np
import pytest

from jdissect.report.tables.layer import aligned, layer_report
from tests import small_runs


def with_pixels(images, side, quantile, fires):
    """A result of so many images and pixels, of which a unit fires on `fires`."""
    found = small_runs.result(units=4, images=images)
    counts = np.zeros_like(found.histogram_counts)
    counts[:, 0] = images * side * side
    return found.replace(
        quantile=quantile,
        histogram_counts=counts,
        fires=np.full(4, fires),
        mask_shape=(side, side),
    )


@pytest.mark.parametrize(
    ("images", "side", "quantile", "can"),
    [
        (1, 7, 0.01, False),  # a pixel is 2 %
        (1, 10, 0.01, True),
        (2, 7, 0.01, False),
        (3, 7, 0.01, True),
        (40, 1, 0.02, False),
        (50, 1, 0.02, True),
    ],
)
def test_no_unit_can_fire(images, side, quantile, can):
    text = layer_report(with_pixels(images, side, quantile, fires=int(can)))
    pixels = images * side**2
    said = f"No unit can fire: quantile {quantile:g} of {pixels:,} pixels is less than"
    assert (said in text) == (not can)
    assert ("config.mask_size" in text and "more images" in text) == (not can)
    assert ("T_k" in text) == can  # no table without a row
    assert "No unit fires" not in text


def test_no_unit_fires():
    text = layer_report(with_pixels(100, 7, 0.01, fires=0))
    assert "No unit fires: each has its highest value on more pixels" in text
    assert "can fire" not in text and "T_k" not in text


@pytest.mark.parametrize(("images", "few"), [(1, True), (29, True), (30, False)])
def test_few_images(images, few):
    text = layer_report(with_pixels(images, 100, 0.01, fires=9))
    line = f"Only {images} image{'s' if images > 1 else ''}: counts of fewer than 30"
    assert (line in text) == few and ("Only" in text) == few
    assert all(len(line) < 90 for line in text.splitlines())


def test_what_a_table_shows_is_written_as_it_is_given():
    """tabulate writes 0.120 as 0.12, and a class named 007 as 7."""
    rows = [["class", "IoU"], ["007", "0.120"], ["agent", "0.05"], ["1e5", ""]]
    assert aligned(rows) == "class    IoU\n007    0.120\nagent   0.05\n1e5"
    numbers = [["unit", "IoU"], [7, "0.120"], [12, "0.050"]]
    assert aligned(numbers) == "unit    IoU\n   7  0.120\n  12  0.050"
