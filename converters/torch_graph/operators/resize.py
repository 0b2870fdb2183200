"""Translates interpolation of maps, as a matrix for each of the two axes.

PyTorch's source coordinates: with `align_corners`, corners meet corners; else pixels
are areas, and bilinear interpolation does not go below 0. Bicubic uses Keys' kernel
with a = -0.75, or -0.5 where it filters against aliasing (as Pillow does).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jdissect.converters.torch_graph.values import (
    Maps,
    channels_last,
    in_float32,
    precision,
)


@in_float32
def separably(x, rows: np.ndarray, columns: np.ndarray):
    """Multiplies the rows and columns of maps by matrices [out, in]."""
    images = channels_last(x)
    exact = precision(images.dtype)
    rows, columns = (np.asarray(m, np.float32) for m in (rows, columns))
    images = jnp.einsum("oh,bhwc->bowc", rows, images, precision=exact)
    return Maps(jnp.einsum("ow,bhwc->bhoc", columns, images, precision=exact))


def _sizes(x, output_size, factors):
    """Returns the sizes of the output, and the factors that were given or None."""
    height, width = x.shape[2:]
    given = list(factors) if factors else [None, None]
    if output_size is None:
        output_size = [int(s * f) for s, f in zip((height, width), given, strict=True)]
    return list(output_size), given


def _scale(size, out, factor, align_corners) -> float:
    """Returns the distance of two neighbours in the source."""
    if align_corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1 / factor if factor else size / out


def nearest(x, output_size=None, *factors, exact=False):
    """aten.upsample_nearest2d, and with `exact` _upsample_nearest_exact2d."""
    if len(factors) == 1 and (factors[0] is None or isinstance(factors[0], list)):
        (factors,) = factors
    sizes, given = _sizes(x, output_size, factors)
    images = channels_last(x)
    for axis, (out, factor) in enumerate(zip(sizes, given, strict=True), 1):
        size = images.shape[axis]
        if not exact and out % size == 0 and factor in (None, out / size):
            images = jnp.repeat(images, out // size, axis)
            continue
        scale = np.float32(_scale(size, out, factor, False))
        places = (np.arange(out, dtype=np.float32) + (0.5 if exact else 0)) * scale
        places = np.minimum(np.floor(places).astype(np.int32), size - 1)
        images = jnp.take(images, places, axis)
    return Maps(images)


def nearest_exact(x, output_size=None, *factors):
    """aten._upsample_nearest_exact2d: the pixel under the centre."""
    return nearest(x, output_size, *factors, exact=True)


def _triangle(distance):
    return np.maximum(1 - np.abs(distance), 0)


def _keys(a: float) -> Callable:
    def kernel(distance):
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = a * (((d - 5) * d + 8) * d - 4)
        return np.where(d < 1, near, np.where(d < 2, far, 0))

    return kernel


def _matrix(size, out, scale, align_corners, kernel, taps, clamp) -> np.ndarray:
    """Returns the weights [out, in] of an interpolation; edges are repeated."""
    offset = 0 if align_corners else 0.5
    places = (np.arange(out) + offset) * scale - offset
    if clamp:
        places = np.maximum(places, 0)
    matrix = np.zeros((out, size))
    first = np.floor(places).astype(int) - (taps // 2 - 1)
    for tap in range(taps):
        index = first + tap
        weight = kernel(places - index)
        np.add.at(matrix, (np.arange(out), np.clip(index, 0, size - 1)), weight)
    return matrix


def _antialiased(size, out, scale, align_corners, kernel, support) -> np.ndarray:
    """Returns the weights of an interpolation whose kernel grows with the scale."""
    stretch = max(scale, 1.0)
    reach = support * stretch
    matrix = np.zeros((out, size))
    for row in range(out):
        centre = scale * (row + 0.5)
        start = max(int(centre - reach + 0.5), 0)
        end = min(int(centre + reach + 0.5), size)
        weights = kernel((np.arange(start, end) - centre + 0.5) / stretch)
        matrix[row, start:end] = weights / weights.sum()
    return matrix


def _interpolation(make: Callable) -> Callable:
    def interpolate(x, output_size, align_corners=False, *factors):
        if len(factors) == 1 and (factors[0] is None or isinstance(factors[0], list)):
            (factors,) = factors
        sizes, given = _sizes(x, output_size, factors)
        matrices = [
            make(size, out, _scale(size, out, factor, align_corners), align_corners)
            for size, out, factor in zip(x.shape[2:], sizes, given, strict=True)
        ]
        return separably(x, *matrices)

    return interpolate


def _bilinear(size, out, scale, align_corners):
    return _matrix(size, out, scale, align_corners, _triangle, 2, not align_corners)


def _bicubic(size, out, scale, align_corners):
    return _matrix(size, out, scale, align_corners, _keys(-0.75), 4, False)


def _bilinear_antialiased(size, out, scale, align_corners):
    return _antialiased(size, out, scale, align_corners, _triangle, 1)


def _bicubic_antialiased(size, out, scale, align_corners):
    return _antialiased(size, out, scale, align_corners, _keys(-0.5), 2)


OPERATORS = {
    "upsample_nearest2d": nearest,
    "_upsample_nearest_exact2d": nearest_exact,
    "upsample_bilinear2d": _interpolation(_bilinear),
    "upsample_bicubic2d": _interpolation(_bicubic),
    "_upsample_bilinear2d_aa": _interpolation(_bilinear_antialiased),
    "_upsample_bicubic2d_aa": _interpolation(_bicubic_antialiased),
}
