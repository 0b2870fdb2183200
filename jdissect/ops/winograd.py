"""Computes 3x3 convolutions by Winograd's F(4x4, 3x3), with a quarter of the products.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Every 4x4
tile of the output reads a 6x6 tile of the input:

    Y = A^T [ (G g G^T) * (B^T d B) ] A

The bracket is summed over channels, which makes 36 matrix products over all tiles. The
interpolation points are 0, +-1/sqrt(2), +-sqrt(2) and infinity instead of Lavin's 0,
+-1, +-2 and infinity: the largest error in float32 is then 3e-6 of the largest value
instead of 1.5e-5 (512 channels; the direct sum has 1e-6).

The input transform sums shifted maps, rows first: it reads and writes the tiles once,
with no more arithmetic than the transform has. The output transform is a matrix
product, which XLA's CPU backend runs faster than the sums (they would write with
strides).
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jdissect.base.arrays import AnyArray

TILE = 4  # side of a tile of the output
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
SIDE = TILE + 2  # side of an input tile


@functools.cache
def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns B^T [6, 6], G [6, 3] and A^T [4, 6] in float64, by Toom-Cook.

    A polynomial product is evaluated at the points, multiplied there, and interpolated;
    the convolution of a tile is its transpose.
    """

    def evaluate(coefficients):
        powers = np.power.outer(np.array(POINTS), np.arange(coefficients))
        infinity = np.eye(coefficients)[-1:]
        return np.concatenate([powers, infinity])

    inverse = np.linalg.inv(evaluate(SIDE))
    inverse[np.abs(inverse) < 1e-12] = 0  # rounding errors
    return inverse.T, evaluate(3), evaluate(TILE).T


def convolve(
    maps: Float[AnyArray, "batch height width channel"],
    kernel: Float[AnyArray, "36 channel unit"],
    dilation: int = 1,
) -> Float[Array, "batch height width unit"]:
    """Convolves with stride 1 and zero padding; keeps the size.

    Convolutions of the same maps in one compiled function share the maps' transform.

    Args:
      maps: float32.
      kernel: kernel from `transform_kernel`.
      dilation: distance of the kernel's taps. Each residue of rows and columns is then
        a map of its own.
    """
    found = lax.dot_general(
        tiles(maps, dilation),
        kernel,
        (((2,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    )
    return _untile(found, maps.shape[:3], dilation)


def transform_kernel(
    kernel: Float[np.ndarray, "3 3 channel unit"],
) -> Float[np.ndarray, "36 channel unit"]:
    """Returns G g G^T per channel and unit, rounded once to float32."""
    _, transform, _ = transforms()
    flat = np.asarray(kernel, np.float64).reshape(9, -1)
    flat = (np.kron(transform, transform) @ flat).astype(np.float32)
    return flat.reshape(SIDE**2, *kernel.shape[2:])


def tiles(
    maps: Float[AnyArray, "batch height width channel"], dilation: int
) -> Float[Array, "36 tile channel"]:
    """Returns B^T d B of every tile."""
    batch, height, width, channels = maps.shape
    rows, columns = tile_counts(height, dilation), tile_counts(width, dilation)
    more_rows, more_columns = (
        (TILE * count + 1) * dilation - size
        for count, size in ((rows, height), (columns, width))
    )
    maps = jnp.pad(
        maps, ((0, 0), (dilation, more_rows), (dilation, more_columns), (0, 0))
    )
    maps = maps.reshape(  # each residue is a map of its own
        batch, TILE * rows + 2, dilation, TILE * columns + 2, dilation, channels
    )
    transform, _, _ = transforms()
    maps = combined(transform, [maps[:, i::TILE][:, :rows] for i in range(SIDE)], 0)
    maps = combined(
        transform,
        [maps[:, :, :, :, i::TILE][:, :, :, :, :columns] for i in range(SIDE)],
        1,
    )
    return maps.reshape(SIDE**2, -1, channels)


def combined(matrix: np.ndarray, parts: Sequence[Array], axis: int) -> Array:
    """Returns matrix @ parts as sums over the parts, rows stacked along `axis`."""
    rows = []
    for row in matrix:
        terms = [
            part * np.float32(factor)
            for factor, part in zip(row, parts, strict=True)
            if factor
        ]
        rows.append(functools.reduce(jnp.add, terms))
    return jnp.stack(rows, axis)


def _untile(found, shape, dilation):
    """Puts A^T m A of every tile's m in place: [batch, height, width, unit]."""
    batch, height, width = shape
    units = found.shape[-1]
    _, _, transform = transforms()
    maps = product(np.kron(transform, transform), found.reshape(SIDE**2, -1))
    rows, columns = tile_counts(height, dilation), tile_counts(width, dilation)
    maps = maps.reshape(
        TILE, TILE, batch, rows, dilation, columns, dilation, units
    ).transpose(2, 3, 0, 4, 5, 1, 6, 7)
    maps = maps.reshape(batch, rows * TILE * dilation, columns * TILE * dilation, units)
    return maps[:, :height, :width]


def tile_counts(size: int, dilation: int) -> int:
    """Returns the number of tiles that cover an axis's positions of one residue."""
    return -(-size // (dilation * TILE))


def product(matrix: np.ndarray, flat: Array) -> Array:
    """Returns matrix @ flat in float32."""
    return jnp.dot(
        jnp.asarray(matrix, jnp.float32), flat, precision=lax.Precision.HIGHEST
    )
