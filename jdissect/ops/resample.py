"""Linear resampling of maps by constant matrices, one an axis.

Bilinear resizing, average pooling and Precise RoI pooling of a whole map are all
separable and linear: `out = rows @ map @ columns.T` for every channel. So they are two
matrix products on any backend, without a kernel to compile.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_FEW = 4  # channels


@functools.cache
def bilinear(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Bilinear resizing with half-pixel centres, the border repeated.

    PyTorch's `interpolate(mode='bilinear', align_corners=False)`: no antialiasing.
    """
    where = (np.arange(target) + 0.5) * size / target - 0.5
    return _hats(np.clip(where, 0, size - 1), size).astype(np.float32)


def _hats(
    where: Float[np.ndarray, " point"], size: int
) -> Float[np.ndarray, "point size"]:
    """max(0, 1 - |t - i|) at the points t for every grid point i."""
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))


@functools.cache
def adaptive_average(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Output i averages input floor(i n / m) .. ceil((i + 1) n / m) - 1.

    PyTorch's `adaptive_avg_pool`; upwards it repeats or averages neighbours.
    """
    weights = np.zeros((target, size))
    for i in range(target):
        first, end = i * size // target, -(-(i + 1) * size // target)
        weights[i, first:end] = 1 / (end - first)
    return weights.astype(np.float32)


@functools.cache
def precise_roi(size: int, bins: int) -> Float[np.ndarray, "bins size"]:
    """Precise RoI pooling of a whole axis (Jiang et al., ECCV 2018, eq. 4).

    The mean over each bin of [0, size] of the continuous function that interpolates
    the grid linearly, grid point i at coordinate i and zero outside of the grid.
    """

    def integral(t):  # of max(0, 1 - |t - i|) from -infinity, for every i
        s = np.clip(t[:, None] - np.arange(size), -1, 1)
        return 0.5 + s - np.sign(s) * s**2 / 2

    edges = np.arange(bins + 1) * size / bins
    weights = np.diff(integral(edges), axis=0) * bins / size
    return weights.astype(np.float32)


def resample(
    maps: Float[Array, "batch height width channel"],
    rows: Float[np.ndarray, "height2 height"],
    columns: Float[np.ndarray, "width2 width"],
) -> Float[Array, "batch height2 width2 channel"]:
    """Both axes by their matrices, rows first; the type of the maps stays."""
    batch, height, width, channels = maps.shape
    product = functools.partial(
        lax.dot_general,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=maps.dtype,
    )
    flat = maps.reshape(batch, height, width * channels)
    rows = jnp.broadcast_to(jnp.asarray(rows, maps.dtype), (batch, *rows.shape))
    flat = product(rows, flat, (((2,), (1,)), ((0,), (0,))))
    count = flat.shape[1]
    if channels <= _FEW:
        # As one product for all rows and channels, most of it with zeros: products of
        # matrices of three columns take eight times as long on a CPU.
        columns = np.kron(columns.T, np.eye(channels, dtype=columns.dtype))
        flat = product(
            flat.reshape(batch * count, -1),
            jnp.asarray(columns, maps.dtype),
            (((1,), (0,)), ((), ())),
        )
        return flat.reshape(batch, count, -1, channels)
    flat = flat.reshape(batch * count, width, channels)
    columns = jnp.broadcast_to(
        jnp.asarray(columns, maps.dtype), (batch * count, *columns.shape)
    )
    flat = product(columns, flat, (((2,), (1,)), ((0,), (0,))))
    return flat.reshape(batch, count, -1, channels)


def resize(
    maps: Float[Array, "batch height width channel"], shape: tuple[int, int]
) -> Float[Array, "batch height2 width2 channel"]:
    """`bilinear` to `shape`, (height, width)."""
    if maps.shape[1:3] == tuple(shape):
        return maps
    rows, columns = (
        bilinear(size, target)
        for size, target in zip(maps.shape[1:3], shape, strict=True)
    )
    return resample(maps, rows, columns)


def pool(
    maps: Float[Array, "batch height width channel"],
    bins: int,
    matrix=adaptive_average,
) -> Float[Array, "batch bins bins channel"]:
    """Pools to bins x bins by `adaptive_average` or `precise_roi`."""
    height, width = maps.shape[1:3]
    return resample(maps, matrix(height, bins), matrix(width, bins))
