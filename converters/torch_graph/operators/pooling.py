"""Translates pooling, also to a given size, on `Maps`."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jdissect.converters.torch_graph.operators import resize
from jdissect.converters.torch_graph.values import (
    Maps,
    Untranslated,
    channels_last,
    half_among,
    in_float32,
    narrow,
    plain,
)

from jdissect.models.layers import spatial_mean


def _pair(value) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _images(x):
    """Returns [batch, height, width, channel] of maps with or without a batch."""
    if x.ndim != 4:
        raise Untranslated(f"pooling of {x.ndim} dimensions")
    return channels_last(x)


def _pads(size, window, stride, padding, ceil_mode) -> tuple[int, int]:
    """Returns how many elements PyTorch adds before and after an axis.

    With `ceil_mode` the last window may leave the image, but must begin in it or in
    the padding before it.
    """
    over = size + 2 * padding - window
    count = (math.ceil(over / stride) if ceil_mode else over // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    behind = (count - 1) * stride + window - size - padding
    return padding, max(behind, 0)


def max_pool2d(x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """aten.max_pool2d."""
    images = _images(x)
    window, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = _pair(stride) if stride else window
    reach = [d * (w - 1) + 1 for d, w in zip(dilation, window, strict=True)]
    pads = [
        _pads(*axis, ceil_mode=ceil_mode)
        for axis in zip(images.shape[1:3], reach, stride, padding, strict=True)
    ]
    found = lax.reduce_window(
        images,
        np.array(-np.inf, images.dtype),
        lax.max,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *pads, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )
    return Maps(found)


def max_pool2d_with_indices(x, *arguments, **options):
    """aten.max_pool2d_with_indices; the indices are not returned."""
    return max_pool2d(x, *arguments, **options), None


@in_float32
def avg_pool2d(
    x,
    kernel_size,
    stride=(),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """aten.avg_pool2d."""
    images = _images(x)
    window, padding = _pair(kernel_size), _pair(padding)
    stride = _pair(stride) if stride else window
    sizes = images.shape[1:3]
    pads = [
        _pads(*axis, ceil_mode=ceil_mode)
        for axis in zip(sizes, window, stride, padding, strict=True)
    ]
    sums = lax.reduce_window(
        images,
        np.zeros((), images.dtype),
        lax.add,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *pads, (0, 0)),
    )
    if divisor_override:
        return Maps(sums / divisor_override)
    counts = [
        _window_sizes(*axis, count_include_pad=count_include_pad)
        for axis in zip(sizes, window, stride, padding, pads, strict=True)
    ]
    return Maps(sums / np.multiply.outer(*counts).astype(np.float32)[:, :, None])


def _window_sizes(size, window, stride, padding, pads, count_include_pad):
    """Returns the number of elements that each window of an axis counts."""
    starts = np.arange(0, size + sum(pads) - window + 1, stride) - padding
    ends = np.minimum(starts + window, size + padding)
    if not count_include_pad:
        starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
    return ends - starts


def _bounds(size: int, count: int) -> list[tuple[int, int]]:
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(x, output_size):
    """aten.adaptive_avg_pool2d: windows as even as possible."""
    images = _images(x)
    sizes = images.shape[1:3]
    counts = _sizes_or(output_size, sizes)
    if counts == (1, 1):
        found = spatial_mean(images)[:, None, None]
        return Maps(narrow(found, images.dtype))
    if counts == tuple(sizes):
        return Maps(images)
    matrices = []
    for size, count in zip(sizes, counts, strict=True):
        matrix = np.zeros((count, size))
        for row, (start, end) in zip(matrix, _bounds(size, count), strict=True):
            row[start:end] = 1 / (end - start)
        matrices.append(matrix)
    return resize.separably(Maps(images), *matrices)


def adaptive_max_pool2d(x, output_size):
    """aten.adaptive_max_pool2d; the indices are not returned."""
    images = _images(x)
    counts = _sizes_or(output_size, images.shape[1:3])
    for axis, count in zip((1, 2), counts, strict=True):
        parts = [
            lax.slice_in_dim(images, start, end, axis=axis).max(axis)
            for start, end in _bounds(images.shape[axis], count)
        ]
        images = jnp.stack(parts, axis)
    return Maps(images), None


def _sizes_or(output_size, sizes) -> tuple[int, ...]:
    pair = output_size
    if isinstance(pair, int | None) or len(pair) == 1:
        pair = [pair if isinstance(pair, int | None) else pair[0]] * 2
    return tuple(
        size if wanted is None else wanted
        for wanted, size in zip(pair, sizes, strict=True)
    )


def adaptive_avg_pool1d(x, output_size):
    """aten.adaptive_avg_pool1d: [batch, channel, length]."""
    x = plain(x)
    (count,) = output_size if isinstance(output_size, list | tuple) else (output_size,)
    half = half_among([x])
    parts = [
        x[..., start:end].astype(jnp.float32).mean(-1)
        for start, end in _bounds(x.shape[-1], count)
    ]
    return narrow(jnp.stack(parts, -1), half)


OPERATORS = {
    "max_pool2d": max_pool2d,
    "max_pool2d_with_indices": max_pool2d_with_indices,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool1d": adaptive_avg_pool1d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "_adaptive_avg_pool2d": adaptive_avg_pool2d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
}
