"""Masks of the top images, against an upsampling of another make."""

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.report import top_masks
from tests.detecting import make_result


def upsampled(grid, shape):
    """Bilinear, half-pixel centres, zeros around: pixel by pixel, in float64."""
    height, width = grid.shape
    padded = np.pad(grid.astype(np.float64), 1)
    found = np.empty(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            v = (y + 0.5) * height / shape[0] + 0.5  # in the padded grid
            u = (x + 0.5) * width / shape[1] + 0.5
            top, left = int(v), int(u)
            v, u = v - top, u - left
            four = padded[top : top + 2, left : left + 2]
            found[y, x] = np.array([1 - v, v]) @ four @ np.array([1 - u, u])
    return found


def test_masks_are_exact():
    result = make_result()
    units = [6, 0, 3]
    masks = top_masks.top_masks(result, units)
    assert masks.shape == (3, 2, 20, 20) and masks.dtype == bool
    assert 0.05 < masks.mean() < 0.95
    for place, unit in enumerate(units):
        for k in range(2):
            pixels = upsampled(result.top_map[unit, k], (20, 20))
            threshold = float(result.thresholds[unit])
            assert np.abs(pixels - threshold).min() > 1e-6  # no rounding decides
            np.testing.assert_array_equal(masks[place, k], pixels > threshold)
    # A pixel that equals T_k does not fire.
    flat = np.full((7, 2, 1, 1), np.float32(0.7))
    equal = make_result(top_map=flat, thresholds=np.full(7, 0.7, np.float32))
    assert not top_masks.top_masks(equal, [0]).any()


@pytest.mark.parametrize("missing", ["top_map", "mask_shape"])
def test_results_of_older_versions_are_refused(missing):
    with pytest.raises(UserError, match="older version; run again with --overwrite"):
        top_masks.top_masks(make_result(**{missing: None}), [0])
