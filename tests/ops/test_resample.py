"""Resampling matrices against PyTorch in float64, golden arrays and definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from jdissect.ops import resample


def random_maps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("channels", [3, 5])  # few in one product
@pytest.mark.parametrize("shape", [(56, 56), (7, 13), (1, 5), (64, 3)])
def test_resize_is_pytorchs(shape, channels):
    torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")
    maps = random_maps(2, 8, 11, channels)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps.transpose(0, 3, 1, 2)).double(), shape, mode="bilinear"
    ).numpy()
    found = np.asarray(resample.resize(jnp.asarray(maps), shape)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("size", [(224, 256), (240, 100), (5, 1), (3, 7)])
def test_adaptive_average_is_pytorchs(size):
    torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")
    length, target = size
    maps = random_maps(1, length, 10, 2)
    expected = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(maps.transpose(0, 3, 1, 2)).double(), target
    ).numpy()
    found = np.asarray(resample.pool(maps, target)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_precise_roi_pooling_gives_the_golden_arrays(golden):
    arrays = np.load(golden / "prroi.npz")
    for bins in (1, 2, 3, 6):
        found = resample.pool(arrays["x"], bins, resample.precise_roi)
        np.testing.assert_allclose(found, arrays[f"pool{bins}"], atol=1e-5)


@pytest.mark.parametrize(("size", "bins"), [(8, 3), (5, 6), (1, 2), (13, 1)])
def test_precise_roi_is_the_mean_of_hats(size, bins):
    """By brute force: the interpolated function's mean over each bin."""
    fine = 20_000
    where = (np.arange(bins * fine) + 0.5) * size / (bins * fine)
    hats = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))
    expected = hats.reshape(bins, fine, size).mean(axis=1)
    np.testing.assert_allclose(resample.precise_roi(size, bins), expected, atol=1e-6)


def test_a_constant_map_stays_constant_but_at_the_far_border():
    """Beyond the last grid point Precise RoI pooling sees zeros."""
    ones = jnp.ones((1, 4, 4, 1), jnp.float32)
    for shape in ((9, 2), (4, 4)):
        np.testing.assert_allclose(resample.resize(ones, shape), 1, atol=1e-6)
    np.testing.assert_allclose(resample.pool(ones, 7), 1, atol=1e-6)
    pooled = np.asarray(resample.pool(ones, 2, resample.precise_roi))[0, :, :, 0]
    np.testing.assert_allclose(pooled, np.outer([1, 0.75], [1, 0.75]), atol=1e-6)
