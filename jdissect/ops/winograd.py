"""3x3 convolutions by Winograd's F(4x4, 3x3): a quarter of the multiplications.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Every 4x4
tile of the output reads a 6x6 tile of the input:

    Y = A^T [ (G g G^T) * (B^T d B) ] A

summed over channels between the brackets, which makes 36 matrix products of all tiles.
The interpolation points are 0, +-1/sqrt(2), +-sqrt(2) and infinity rather than Lavin's
0, +-1, +-2 and infinity: the largest error in float32 is then 3e-6 of the largest value
where it was 1.5e-5 (512 channels; the direct sum has 1e-6).

The two transforms are matrix products as well: XLA's CPU backend runs products on all
cores and everything else on one.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4  # side of a tile of the output
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
SIDE = TILE + 2  # of a tile of the input


@functools.cache
def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T [6, 6], G [6, 3] and A^T [4, 6] in float64, by Toom and Cook.

    A polynomial product is evaluated at the points, multiplied there, and interpolated;
    the convolution of a tile is its transpose.
    """

    def evaluate(coefficients):
        powers = np.power.outer(np.array(POINTS), np.arange(coefficients))
        infinity = np.eye(coefficients)[-1:]
        return np.concatenate([powers, infinity])

    return np.linalg.inv(evaluate(SIDE)).T, evaluate(3), evaluate(TILE).T


def convolve(
    maps: Float[Array, "batch height width channel"],
    kernel: Float[Array, "36 channel unit"],
    dilation: int = 1,
) -> Float[Array, "batch height width unit"]:
    """The convolution with stride 1 that keeps the size; zeros around the maps.

    Convolutions of the same maps in one compiled function share the maps' transform.

    Args:
      maps: float32.
      kernel: as `transform_kernel` gives it.
      dilation: distance of the kernel's taps. Every residue of rows and columns is a
        map of its own then.
    """
    product = lax.dot_general(
        _tiles(maps, dilation),
        kernel,
        (((2,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    )
    return _untile(product, maps.shape[:3], dilation)


def transform_kernel(
    kernel: Float[np.ndarray, "3 3 channel unit"],
) -> Float[np.ndarray, "36 channel unit"]:
    """G g G^T of every pair of channel and unit, rounded once to float32."""
    _, transform, _ = transforms()
    flat = np.asarray(kernel, np.float64).reshape(9, -1)
    flat = (np.kron(transform, transform) @ flat).astype(np.float32)
    return flat.reshape(SIDE**2, *kernel.shape[2:])


def _tiles(maps, dilation):
    """B^T d B of every tile: [36, tile, channel]."""
    batch, height, width, channels = maps.shape
    rows, columns = _starts(height, dilation), _starts(width, dilation)
    reach = dilation * (SIDE - 1)
    maps = jnp.pad(
        maps,
        (
            (0, 0),
            (dilation, max(0, rows.max() + reach - dilation - height + 1)),
            (dilation, max(0, columns.max() + reach - dilation - width + 1)),
            (0, 0),
        ),
    )
    padded_height, padded_width = maps.shape[1:3]
    step = dilation * np.arange(SIDE)
    row = step[:, None] + rows
    column = step[:, None] + columns
    # (row in the tile, column in the tile, image, tile's row, tile's column)
    place = row[:, None, None, :, None] * padded_width + column[None, :, None, None, :]
    image = np.arange(batch)[:, None, None] * (padded_height * padded_width)
    # One gather of whole pixels: 3 times faster than 36 slices (XLA's CPU backend).
    index = jnp.asarray((place + image).reshape(-1), jnp.int32)
    pixels = jnp.take(maps.reshape(-1, channels), index, axis=0, mode="clip")
    transform, _, _ = transforms()
    spread = _product(np.kron(transform, transform), pixels.reshape(SIDE**2, -1))
    return spread.reshape(SIDE**2, -1, channels)


def _untile(product, shape, dilation):
    """A^T m A of every tile's m, in place: [batch, height, width, unit]."""
    batch, height, width = shape
    units = product.shape[-1]
    _, _, transform = transforms()
    maps = _product(np.kron(transform, transform), product.reshape(SIDE**2, -1))
    rows, columns = _tile_counts(height, dilation), _tile_counts(width, dilation)
    maps = maps.reshape(
        TILE, TILE, batch, rows, dilation, columns, dilation, units
    ).transpose(2, 3, 0, 4, 5, 1, 6, 7)
    maps = maps.reshape(batch, rows * TILE * dilation, columns * TILE * dilation, units)
    return maps[:, :height, :width]


def _tile_counts(size: int, dilation: int) -> int:
    """Tiles that cover an axis' positions of one residue."""
    return -(-size // (dilation * TILE))


def _starts(size: int, dilation: int) -> np.ndarray:
    """Where, in the padded axis, input tiles start: (tile, residue), flat."""
    first = np.arange(_tile_counts(size, dilation)) * (dilation * TILE)
    return (first[:, None] + np.arange(dilation)).reshape(-1)


def _product(matrix: np.ndarray, flat: Array) -> Array:
    return jnp.dot(
        jnp.asarray(matrix, jnp.float32), flat, precision=lax.Precision.HIGHEST
    )
