"""Pearson and cosine from fixed-point sums, against NumPy on every upsampled pixel."""

import numpy as np
import pytest

from jdissect.scoring.moments import Moments
from jdissect.scoring.samples import Batch
from tests.scoring import case


def moments(small, **changes):
    features = small.batch.features
    return Moments(
        **{
            "grid": features.shape[1:3],
            "mask_shape": case.SHAPE,
            "category": case.CATEGORY,
            "categories": 4,
            "largest": np.abs(features).max(axis=(0, 1, 2)),
            "images": len(features),
            **changes,
        }
    )


def some(batch, images):
    return Batch(*(array[images] for array in batch))


def summed(how, batch):
    sums = how.empty()
    how.add(sums, batch)
    return sums


@pytest.mark.parametrize("grid", [(4, 5), case.SHAPE, (1, 1), (17, 3)])
def test_they_are_those_of_the_pixels(grid):
    """Upsampled, on the mask's own grid, one value, and more rows than the mask."""
    small = case.make(1, grid)
    how = moments(small)
    sums = summed(how, small.batch)
    pearson, cosine = how.pearson(sums), how.cosine(sums)
    want, angle = np.zeros_like(pearson), np.zeros_like(cosine)
    for concept in range(5):
        pixels = small.flat(small.pixels, concept)
        mask = small.flat(small.masks, concept)[:, concept].astype(float)
        for unit, values in enumerate(pixels.T):
            scale = np.abs(values).max()
            if values.std() > 1e-6 * scale and mask.std():
                want[unit, concept] = np.corrcoef(values, mask)[0, 1]
            if scale and mask.any():
                length = np.linalg.norm(values / scale) * np.linalg.norm(mask)
                angle[unit, concept] = values / scale @ mask / length
    assert (np.abs(want) > 0.2).any() and not want[3].any()
    error = how.error(sums)
    assert error < 1e-7
    # The pixels here are rounded to float32.
    np.testing.assert_allclose(pearson, want, rtol=0, atol=error + 1e-6)
    np.testing.assert_allclose(cosine, angle, rtol=0, atol=error + 1e-6)


def test_the_error_of_few_bits_is_within_its_bound():
    """As for so many images that few bits are left for an activation."""
    small = case.make()
    fine, coarse = moments(small), moments(small, images=2**43)
    assert coarse.bits == 12 < fine.bits
    exact, sums = summed(fine, small.batch), summed(coarse, small.batch)
    changed = np.abs(coarse.pearson(sums) - fine.pearson(exact))
    assert 1e-6 < changed.max() <= coarse.error(sums) < 0.1


def test_any_order_and_grouping_gives_the_same_bits():
    small = case.make()
    how = moments(small)
    whole = summed(how, small.batch)
    images = np.random.default_rng(0).permutation(len(small.batch.features))
    parts = [summed(how, some(small.batch, part)) for part in np.split(images, [3, 4])]
    merged = parts[2].merged(parts[0]).merged(parts[1])
    for one, other in zip(whole, merged, strict=True):
        assert one.dtype == np.int64
        np.testing.assert_array_equal(one, other)


def test_a_range_that_is_too_small_is_an_error():
    small = case.make()
    how = moments(small, largest=np.full(8, 1e-3))
    with pytest.raises(ValueError, match="exceeds"):
        summed(how, small.batch)
