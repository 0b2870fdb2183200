"""Which detectors are drawn, and how a mask is shown."""

import numpy as np

from jdissect.report.figures import detector_pictures
from tests.detecting import make_result


def test_the_best_detectors_are_of_different_concepts():
    best = detector_pictures.best_detectors(make_result(), 2)
    assert {c: [(d.unit, d.concept) for d in ds] for c, ds in best.items()} == {
        "object": [(0, "car"), (2, "$ky_1")],
        "part": [(3, "wheel")],
        "color": [(4, "red")],
    }  # wood has 0.04, which is not above it
    assert list(best) == ["object", "part", "color"]
    one = detector_pictures.best_detectors(make_result(), 1)
    assert [len(ds) for ds in one.values()] == [1, 1, 1]


def test_outside_of_the_mask_it_is_dark():
    picture = np.full((8, 6, 3), 200, np.uint8)
    mask = np.zeros((4, 3), bool)
    mask[1, 2] = True
    seen = detector_pictures.masked(picture, mask)
    bright = np.zeros((8, 6), bool)
    bright[2:4, 4:6] = True
    np.testing.assert_array_equal((seen == 200).all(axis=-1), bright)
    assert (seen[~bright] == round(200 * detector_pictures.DARKENED)).all()


def test_the_outline_is_the_masks_border():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    lines = detector_pictures.outline(mask)
    assert sorted(lines) == [
        ((1, 1), (1, 3)),
        ((1, 1), (4, 1)),
        ((1, 3), (4, 3)),
        ((4, 1), (4, 3)),
    ]
    rng = np.random.default_rng(0)
    mask = rng.random((9, 7)) > 0.5
    length = sum(
        abs(x1 - x0) + abs(y1 - y0)
        for (x0, y0), (x1, y1) in detector_pictures.outline(mask)
    )
    assert length == (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
