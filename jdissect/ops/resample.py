"""Resamples maps linearly with constant matrices, one per axis.

Bilinear resizing, average pooling and Precise RoI pooling of a whole map are all
separable and linear: `out = rows @ map @ columns.T` for every channel. So they are two
matrix products on any backend, without a custom kernel.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jdissect.base.arrays import AnyArray

_FEW = 4  # channels


@functools.cache
def bilinear(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Returns the matrix of bilinear resizing with half-pixel centers.

    PyTorch's `interpolate(mode='bilinear', align_corners=False)`: the border repeats,
    no antialiasing.
    """
    where = (np.arange(target) + 0.5) * size / target - 0.5
    return _hats(np.clip(where, 0, size - 1), size).astype(np.float32)


def _hats(
    where: Float[np.ndarray, " point"], size: int
) -> Float[np.ndarray, "point size"]:
    """Returns max(0, 1 - |t - i|) for the points t and every grid point i."""
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))


@functools.cache
def adaptive_average(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Returns the matrix that averages input floor(i n / m) .. ceil((i + 1) n / m) - 1.

    PyTorch's `adaptive_avg_pool`; when upsampling it repeats or averages neighbors.
    """
    weights = np.zeros((target, size))
    for i in range(target):
        first, end = i * size // target, -(-(i + 1) * size // target)
        weights[i, first:end] = 1 / (end - first)
    return weights.astype(np.float32)


@functools.cache
def precise_roi(size: int, bins: int) -> Float[np.ndarray, "bins size"]:
    """Returns the matrix of Precise RoI pooling (Jiang et al., ECCV 2018, eq. 4).

    Each bin of [0, size] averages the continuous function that interpolates the grid
    linearly, with grid point i at coordinate i and zero outside the grid.
    """

    def integral(t):  # of max(0, 1 - |t - i|) from -infinity, for every i
        s = np.clip(t[:, None] - np.arange(size), -1, 1)
        return 0.5 + s - np.sign(s) * s**2 / 2

    edges = np.arange(bins + 1) * size / bins
    weights = np.diff(integral(edges), axis=0) * bins / size
    return weights.astype(np.float32)


def resample(
    maps: Float[AnyArray, "batch height width channel"],
    rows: Float[np.ndarray, "height2 height"],
    columns: Float[np.ndarray, "width2 width"],
) -> Float[Array, "batch height2 width2 channel"]:
    """Applies the matrices to both axes, rows first; keeps the type of the maps."""
    batch, height, width, channels = maps.shape
    product = functools.partial(
        lax.dot_general,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=maps.dtype,
    )
    flat = maps.reshape(batch, height, width * channels)
    across = jnp.broadcast_to(jnp.asarray(rows, maps.dtype), (batch, *rows.shape))
    flat = product(across, flat, (((2,), (1,)), ((0,), (0,))))
    count = flat.shape[1]
    if channels <= _FEW:
        # One product for all rows and channels, mostly of zeros: on a CPU, products of
        # three-column matrices take eight times as long.
        columns = np.kron(columns.T, np.eye(channels, dtype=columns.dtype))
        flat = product(
            flat.reshape(batch * count, -1),
            jnp.asarray(columns, maps.dtype),
            (((1,), (0,)), ((), ())),
        )
        return flat.reshape(batch, count, -1, channels)
    flat = flat.reshape(batch * count, width, channels)
    across = jnp.broadcast_to(
        jnp.asarray(columns, maps.dtype), (batch * count, *columns.shape)
    )
    flat = product(across, flat, (((2,), (1,)), ((0,), (0,))))
    return flat.reshape(batch, count, -1, channels)


def resize(
    maps: Float[Array, "batch height width channel"], shape: Sequence[int]
) -> Float[Array, "batch height2 width2 channel"]:
    """Resizes to `shape`, (height, width), with `bilinear`."""
    if maps.shape[1:3] == tuple(shape):
        return maps
    rows, columns = (
        bilinear(size, target)
        for size, target in zip(maps.shape[1:3], shape, strict=True)
    )
    return resample(maps, rows, columns)


def pool(
    maps: Float[AnyArray, "batch height width channel"],
    bins: int,
    matrix=adaptive_average,
) -> Float[Array, "batch bins bins channel"]:
    """Pools to bins x bins by `adaptive_average` or `precise_roi`."""
    height, width = maps.shape[1:3]
    return resample(maps, matrix(height, bins), matrix(width, bins))
