"""Trainable 3x3 convolutions by Winograd's F(4x4, 3x3), forward and backward.

With D = B^T d B of an input tile, the output tile is Y = A^T [(G g G^T) * D] A
(`ops.winograd`). So the kernel's gradient, per channel and unit, is

    dg = G^T [ sum over tiles of D * (A dY A^T) ] G

again 36 matrix products over the tiles, with a quarter of the multiplications. The
input's gradient is itself a convolution of dY, with the kernel rotated by 180 degrees
and channels and units exchanged. (The transpose of the forward pass, B [...] B^T, would
have to add overlapping tiles.)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jdissect.base.arrays import AnyArray
from jdissect.ops import winograd

_FEWEST = 64  # minimum number of channels and units
_FEWEST_TILES = 16  # fewer do not pay for reading four times as many weights
_WASTE = 1.5  # maximum ratio of the tiles' area to the maps'


def worth_it(maps: tuple[int, ...], kernel: tuple[int, ...], dilation: int = 1) -> bool:
    """Returns whether Winograd's three passes beat the plain convolution on a CPU.

    Measured on 2 cores, 1 to 64 images with maps of 4x4 to 56x56: from 64 channels and
    16 tiles on they take 0.4 to 0.9 of its time; with 8 tiles up to 1.5, with 2 twice
    as long. So with few images it may depend on how many devices share them.

    Args:
      maps, kernel: shapes, [batch, height, width, channel] and [3, 3, channel, unit].
      dilation: distance of the kernel's taps.
    """
    rows, columns = (winograd.tile_counts(size, dilation) for size in maps[1:3])
    tiles = rows * columns * dilation**2  # per map
    fits = tiles * winograd.TILE**2 <= _WASTE * maps[1] * maps[2]
    enough = maps[0] * tiles >= _FEWEST_TILES
    return fits and enough and min(kernel[2:]) >= _FEWEST


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    maps: Float[AnyArray, "batch height width channel"],
    kernel: Float[AnyArray, "3 3 channel unit"],
    dilation: int = 1,
) -> Float[Array, "batch height width unit"]:
    """Convolves with stride 1 and zero padding; keeps the size.

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
    """Returns G g G^T: [36, channel, unit]."""
    _, transform, _ = winograd.transforms()
    matrix = np.kron(transform, transform)
    flat = winograd.product(matrix, kernel.reshape(9, -1))
    return flat.reshape(-1, *kernel.shape[2:])


def _of_kernel(maps, change, dilation):
    """Returns the kernel's gradient: [3, 3, channel, unit]."""
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
    """Returns A dY A^T of every tile, in the order of `winograd.tiles`."""
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
