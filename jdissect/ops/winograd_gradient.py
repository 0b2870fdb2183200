"""3x3 convolutions that are trained, by Winograd's F(4x4, 3x3) in every direction.

With D = B^T d B of a tile of the input, its output is Y = A^T [(G g G^T) * D] A
(`ops.winograd`). So, for each pair of a channel and a unit, the kernel's gradient is

    dg = G^T [ sum over tiles of D * (A dY A^T) ] G

36 matrix products over the tiles again, a quarter of the multiplications. The input's
gradient is a convolution itself: of dY, with the kernel turned by 180 degrees, channels
and units exchanged. (The transpose of the forward pass, B [...] B^T, would have to add
tiles that overlap.)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jdissect.ops import winograd

_FEWEST = 64  # channels and units that make it worth it
_FEWEST_TILES = 16  # fewer do not pay for reading four times as many weights
_WASTE = 1.5  # area of the tiles over that of the maps, at most


def worth_it(maps: tuple[int, ...], kernel: tuple[int, ...], dilation: int = 1) -> bool:
    """Whether all three together are faster on a CPU than the plain convolution's.

    Measured on 2 cores, 1 to 64 images with maps of 4x4 to 56x56: from 64 channels and
    16 tiles on they take 0.4 to 0.9 of its time; with 8 tiles up to 1.5, with 2 twice
    as long. So of few images it may depend on how many devices share them.

    Args:
      maps, kernel: shapes, [batch, height, width, channel] and [3, 3, channel, unit].
      dilation: distance of the kernel's taps.
    """
    rows, columns = (winograd.tile_counts(size, dilation) for size in maps[1:3])
    tiles = rows * columns * dilation**2  # of a map
    fits = tiles * winograd.TILE**2 <= _WASTE * maps[1] * maps[2]
    enough = maps[0] * tiles >= _FEWEST_TILES
    return fits and enough and min(kernel[2:]) >= _FEWEST


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    maps: Float[Array, "batch height width channel"],
    kernel: Float[Array, "3 3 channel unit"],
    dilation: int = 1,
) -> Float[Array, "batch height width unit"]:
    """The convolution with stride 1 that keeps the size; zeros around the maps.

    Args:
      maps, kernel: float32.
      dilation: distance of the kernel's taps.
    """
    return winograd.convolve(maps, _transformed(kernel), dilation)


def _forward(maps, kernel, dilation):
    return convolve(maps, kernel, dilation), (maps, kernel)


def _backward(dilation, kept, change):
    maps, kernel = kept
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    of_maps = winograd.convolve(change, _transformed(turned), dilation)
    return of_maps, _of_kernel(maps, change, dilation)


convolve.defvjp(_forward, _backward)


def _transformed(kernel):
    """G g G^T: [36, channel, unit]."""
    _, transform, _ = winograd.transforms()
    matrix = np.kron(transform, transform)
    flat = winograd.product(matrix, kernel.reshape(9, -1))
    return flat.reshape(-1, *kernel.shape[2:])


def _of_kernel(maps, change, dilation):
    """The kernel's gradient: [3, 3, channel, unit]."""
    found = lax.dot_general(
        winograd.tiles(maps, dilation),
        _spread(change, dilation),
        (((1,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    )
    _, transform, _ = winograd.transforms()
    matrix = np.kron(transform, transform).T
    flat = winograd.product(matrix, found.reshape(winograd.SIDE**2, -1))
    return flat.reshape(3, 3, *found.shape[1:])


def _spread(change, dilation):
    """A dY A^T of every tile, in the order of `winograd.tiles`: [36, tile, unit]."""
    batch, height, width, units = change.shape
    rows, columns = (winograd.tile_counts(size, dilation) for size in (height, width))
    tile, step = winograd.TILE, winograd.TILE * dilation
    more = ((0, rows * step - height), (0, columns * step - width))
    change = jnp.pad(change, ((0, 0), *more, (0, 0)))
    change = change.reshape(batch, rows, tile, dilation, columns, tile, dilation, units)
    _, _, transform = winograd.transforms()
    change = winograd.combined(transform.T, [change[:, :, i] for i in range(tile)], 0)
    change = winograd.combined(
        transform.T, [change[:, :, :, :, :, i] for i in range(tile)], 1
    )
    return change.reshape(winograd.SIDE**2, -1, units)
