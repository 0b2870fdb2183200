"""Cuts feature maps with a symbolic batch size, and convolves by Winograd's algorithm.

Indexing an array of unknown batch size (`maps[:, ::2]`) becomes a gather, which is
slow on CPUs; `cut` is a slice for every batch size. `ops.winograd` and `models.layers`
index, so what they do is written here with slices and their transforms.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jdissect.ops import winograd


def cut(
    array: Array,
    starts: Sequence[int],
    counts: Sequence[int],
    strides: Sequence[int] = (1, 1),
    first: int = 1,
) -> Array:
    """Returns `counts` elements of two axes, the others whole.

    Args:
      array: array of any shape.
      starts, strides: index of the first element, and the distance of two.
      first: the first of the two axes, which are neighbours.
    """
    begin, end, step = [0] * array.ndim, [*array.shape], [1] * array.ndim
    for axis, start, count, stride in zip(
        (first, first + 1), starts, counts, strides, strict=True
    ):
        begin[axis], step[axis] = start, stride
        end[axis] = start + (count - 1) * stride + 1
    return lax.slice(array, begin, end, step)


def windows(
    images: Array,
    sizes: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int] = (1, 1),
) -> list[Array]:
    """Returns what each tap of a kernel reads: [batch, rows, columns, channel]."""
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    counts = [
        (whole - step * (size - 1) - 1) // stride + 1
        for whole, size, stride, step in zip(
            images.shape[1:3], sizes, strides, dilation, strict=True
        )
    ]
    return [
        cut(images, (row * dilation[0], column * dilation[1]), counts, strides)
        for row in range(sizes[0])
        for column in range(sizes[1])
    ]


def depthwise(images: Array, kernel: Array, strides, pads) -> Array:
    """Convolves with one filter per channel; see `layers.depthwise_conv`.

    Args:
      images: float32[batch, height, width, channel].
      kernel: float32[height, width, 1, channel].
    """
    taps = kernel.reshape(-1, kernel.shape[-1])
    parts = windows(images, kernel.shape[:2], strides, pads)
    terms = [part * taps[place] for place, part in enumerate(parts)]
    return functools.reduce(jnp.add, terms)


def convolve3x3(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolves with stride 1, keeping the size; see `ops.winograd`.

    Args:
      images: float32[batch, height, width, channel].
      kernel: float32[3, 3, channel, unit].
      dilation: distance of the kernel's taps.
    """
    batch, height, width, channels = images.shape
    units, side, tile = kernel.shape[-1], winograd.SIDE, winograd.TILE
    inputs, weights, outputs = winograd.transforms()
    rows, columns = (winograd.tile_counts(n, dilation) for n in (height, width))
    more = [
        (tile * count + 1) * dilation - size
        for count, size in ((rows, height), (columns, width))
    ]
    around = ((dilation, more[0]), (dilation, more[1]))
    maps = jnp.pad(images, ((0, 0), *around, (0, 0)))
    maps = maps.reshape(
        batch, tile * rows + 2, dilation, tile * columns + 2, dilation, channels
    )

    def every_fourth(maps, axis, count):
        return [
            lax.slice_in_dim(maps, i, i + (count - 1) * tile + 1, tile, axis)
            for i in range(side)
        ]

    maps = winograd.combined(inputs, every_fourth(maps, 1, rows), 0)
    maps = winograd.combined(inputs, every_fourth(maps, 4, columns), 1)
    prepared = winograd.product(np.kron(weights, weights), kernel.reshape(9, -1))
    found = lax.dot_general(
        maps.reshape(side**2, -1, channels),
        prepared.reshape(side**2, channels, units),
        (((2,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    )
    found = winograd.product(np.kron(outputs, outputs), found.reshape(side**2, -1))
    found = found.reshape(tile, tile, batch, rows, dilation, columns, dilation, units)
    found = found.transpose(2, 3, 0, 4, 5, 1, 6, 7)
    sizes = (rows * tile * dilation, columns * tile * dilation)
    return cut(found.reshape(batch, *sizes, units), (0, 0), (height, width))
