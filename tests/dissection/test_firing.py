"""Pairs of a unit and a pixel where it fires, against dense masks."""

import numpy as np
import pytest

from jdissect.dissection import firing
from jdissect.dissection.features import Record
from jdissect.ops import bit_masks
from jdissect.runtime.devices import Devices
from tests.ops import reference

CONCEPTS = (
    ("-", "-"),
    ("tree", "object"),
    ("bark", "material"),
    ("tree", "object"),
    ("car", "object"),
)
COLUMN = np.array([0, 1, 2, 1, 3])  # of each number, + 1
CATEGORY = np.array([0, 1, 0])  # of each column
GRID, MASK, UNITS = (3, 4), (9, 11), 5


def records(seed: int, annotated: bool):
    rng = np.random.default_rng(seed)
    for start in (0, 4):
        marks = rng.random((4, 2)) < 0.5
        labels = rng.integers(0, len(CONCEPTS), (4, 2, *MASK)).astype(np.int16)
        yield Record(
            index=np.arange(start, start + 4, dtype=np.int32),
            valid=np.array([True, start == 0, True, True]),
            features={"maps": rng.normal(size=(4, *GRID, UNITS)).astype(np.float32)},
            labels=lambda labels=labels: labels,
            annotated=marks if annotated else None,
        )


def upsampled(maps):
    return reference.upsample(maps[None], MASK)[0]


@pytest.mark.parametrize("annotated", [False, True])
def test_pairs_are_those_of_dense_masks(annotated):
    devices = Devices()
    given = list(records(3, annotated))
    thresholds = np.linspace(-0.3, 0.6, UNITS).astype(np.float32)
    geometry = bit_masks.plan(GRID, MASK)
    found = list(
        firing.on_images(given, "maps", thresholds, geometry, CONCEPTS, devices)
    )
    assert [image.index for image in found] == [0, 1, 2, 3, 4, 6, 7]
    at = {int(i): (r, p) for r in given for p, i in enumerate(r.index)}
    for image in found:
        record, place = at[image.index]
        dense = upsampled(record.features["maps"][place]) > thresholds
        mask = np.zeros((MASK[0] * MASK[1], UNITS), bool)
        mask[image.pixel, image.unit] = True
        np.testing.assert_array_equal(mask, dense.reshape(-1, UNITS))
        assert len(image.unit) == dense.sum()
        columns = COLUMN[record.labels()[place]]
        marks = np.ones(2, bool)
        if annotated:
            marks = record.annotated[place]
            columns = np.where(np.append(False, marks[CATEGORY])[columns], columns, 0)
        np.testing.assert_array_equal(image.columns, columns)
        np.testing.assert_array_equal(image.annotated, marks)


def test_order_of_pairs():
    words = np.zeros((4, 2), np.uint32)  # of a mask grid of 8x16
    words[0] = [1 << 9, 3]
    words[3, 1] = 1 << 31
    pixel_of = firing.pixels_of_bits(bit_masks.plan((2, 2), (8, 16)))
    unit, pixel = firing.fired(words, pixel_of)
    assert unit.tolist() == [0, 1, 1, 1]
    assert pixel.tolist() == [17, 0, 1, 127]
