"""Winograd's convolution against sums in float64."""

import jax
import numpy as np
import pytest

from jdissect.ops import winograd


def direct(maps, kernel, dilation):
    """The definition, in float64."""
    maps, kernel = maps.astype(np.float64), kernel.astype(np.float64)
    batch, height, width, _ = maps.shape
    padded = np.pad(maps, ((0, 0), *((dilation, dilation),) * 2, (0, 0)))
    total = np.zeros((batch, height, width, kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            window = padded[:, row * dilation :, column * dilation :]
            total += window[:, :height, :width] @ kernel[row, column]
    return total


def convolve(maps, kernel, dilation=1):
    kernel = winograd.transform_kernel(kernel)
    return jax.jit(winograd.convolve, static_argnums=2)(maps, kernel, dilation)


def draw(shape, units):
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(size=shape), 0).astype(np.float32)
    kernel = rng.normal(size=(3, 3, shape[-1], units)).astype(np.float32)
    return maps, kernel


def test_the_transforms_convolve_one_tile():
    forward, kernel, back = winograd.transforms()
    rng = np.random.default_rng(0)
    signal, taps = rng.normal(size=6), rng.normal(size=3)
    expected = [signal[i : i + 3] @ taps for i in range(4)]
    found = back @ ((kernel @ taps) * (forward @ signal))
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "units", "dilation"),
    [
        ((2, 16, 16, 8), 5, 1),
        ((1, 13, 7, 3), 4, 1),
        ((2, 1, 1, 2), 2, 1),
        ((1, 32, 32, 4), 3, 4),
        ((2, 9, 14, 3), 2, 2),
        ((1, 3, 5, 2), 1, 4),
    ],
)
def test_it_is_the_convolution(shape, units, dilation):
    maps, kernel = draw(shape, units)
    expected = direct(maps, kernel, dilation)
    found = convolve(maps, kernel, dilation)
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


def test_the_error_at_512_channels():
    """What the choice of points is for: with 0, +-1, +-2 it is 1.5e-5."""
    maps, kernel = draw((1, 16, 16, 512), 64)
    expected = direct(maps, kernel, 1)
    found = np.asarray(convolve(maps, kernel))
    assert np.abs(found - expected).max() < 6e-6 * np.abs(expected).max()
