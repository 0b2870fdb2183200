"""Winograd's convolution in training: output and gradients against float64."""

import jax
import numpy as np
import pytest

from jdissect.ops import winograd_gradient
from tests.ops.test_winograd import direct, draw


def direct_gradients(maps, kernel, change, dilation):
    """Of sum(convolution * change), by the definition, in float64."""
    maps, kernel, change = (a.astype(np.float64) for a in (maps, kernel, change))
    _, height, width, _ = maps.shape
    around = ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0))
    padded = np.pad(maps, around)
    of_maps, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for row, column in np.ndindex(3, 3):
        rows = slice(row * dilation, row * dilation + height)
        columns = slice(column * dilation, column * dilation + width)
        of_kernel[row, column] = np.einsum(
            "bhwc,bhwu->cu", padded[:, rows, columns], change
        )
        of_maps[:, rows, columns] += change @ kernel[row, column].T
    inside = slice(dilation, -dilation)
    return of_maps[:, inside, inside], of_kernel


@pytest.mark.parametrize(
    ("shape", "units", "dilation"),
    [
        ((2, 16, 16, 8), 5, 1),
        ((1, 13, 7, 3), 4, 1),
        ((2, 1, 1, 2), 2, 1),
        ((1, 3, 5, 2), 1, 4),
        ((2, 9, 14, 3), 2, 2),
        ((2, 14, 14, 256), 256, 1),
    ],
)
def test_it_is_the_convolution_and_its_gradients(shape, units, dilation):
    maps, kernel = draw(shape, units)
    change = np.random.default_rng(1).normal(size=(*shape[:3], units))
    change = change.astype(np.float32)

    @jax.jit
    def run(maps, kernel, change):
        def convolve(maps, kernel):
            return winograd_gradient.convolve(maps, kernel, dilation)

        output, gradients = jax.vjp(convolve, maps, kernel)
        return output, *gradients(change)

    expected = [
        direct(maps, kernel, dilation),
        *direct_gradients(maps, kernel, change, dilation),
    ]
    for found, array in zip(run(maps, kernel, change), expected, strict=True):
        np.testing.assert_allclose(found, array, atol=1e-5 * np.abs(array).max())


@pytest.mark.parametrize(
    ("images", "side", "channels", "units", "dilation", "expected"),
    [
        (8, 56, 64, 64, 1, True),
        (8, 7, 512, 512, 1, True),  # 64 pixels of tiles for 49
        (8, 5, 512, 512, 1, False),  # 64 for 25
        (8, 56, 32, 64, 1, False),
        (8, 56, 64, 32, 1, False),
        (8, 28, 256, 256, 2, True),  # 32 x 32 for 28 x 28
        (8, 28, 512, 512, 4, True),
        (8, 20, 512, 512, 4, False),  # 32 x 32 for 20 x 20
        (4, 7, 512, 512, 1, True),  # 16 tiles
        (3, 7, 512, 512, 1, False),  # 12
        (4, 7, 512, 512, 2, True),  # 16: one of each residue
        (3, 7, 512, 512, 2, False),
    ],
)
def test_when_it_is_worth_it(images, side, channels, units, dilation, expected):
    maps, kernel = (images, side, side, channels), (3, 3, channels, units)
    assert winograd_gradient.worth_it(maps, kernel, dilation) is expected
