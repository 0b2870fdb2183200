"""Translates convolutions and transposed convolutions.

Two-dimensional ones take and give `Maps`. On a CPU, XLA's own convolution is not the
fastest form of most: 1x1 convolutions are matrix products, depthwise ones are sums over
the kernel's taps, and 3x3 convolutions of stride 1 use Winograd's algorithm, as in the
hand-written networks (`models.layers`). Which form is taken is decided when the
program is compiled for a device.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jdissect.converters.torch_graph.operators import windows
from jdissect.converters.torch_graph.values import (
    Kernel,
    Maps,
    Untranslated,
    alike,
    channels_last,
    half_among,
    narrow,
    plain,
    precision,
    product,
    widen,
)

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolution(
    x,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    transposed=False,
    output_padding=0,
    groups=1,
):
    """aten.convolution, which the others are written with."""
    rank = x.ndim - 2
    stride, dilation = _each(stride, rank), _each(dilation, rank)
    output_padding = _each(output_padding, rank)
    kernel = weight if isinstance(weight, Kernel) else plain(weight)
    if transposed:
        found = _transposed(
            x, kernel, stride, padding, dilation, output_padding, groups
        )
    else:
        found = _forward(x, kernel, stride, padding, dilation, groups)
    if bias is not None:
        shape = (-1,) if isinstance(found, Maps) else (-1,) + (1,) * rank
        array = found.array if isinstance(found, Maps) else found
        array = array + widen(bias).reshape(shape)
        found = Maps(array) if isinstance(found, Maps) else array
    half = half_among([x])
    if half is None:
        return found
    if isinstance(found, Maps):
        return Maps(narrow(found.array, half))
    return narrow(found, half)


def convolve(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """aten.conv1d, conv2d, conv3d; the padding may be 'same' or 'valid'."""
    return convolution(x, weight, bias, stride, padding, dilation, False, 0, groups)


def convolve_transposed(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """aten.conv_transpose1d, conv_transpose2d, conv_transpose3d."""
    return convolution(
        x, weight, bias, stride, padding, dilation, True, output_padding, groups
    )


def _each(value, rank: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * rank
    return tuple(value) * (rank if len(value) == 1 else 1)


def _pads(padding, sizes, dilation) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding == "same":  # the odd one goes behind, as in PyTorch
        totals = [d * (size - 1) for d, size in zip(dilation, sizes, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in _each(padding, len(sizes))]


def _forward(x, kernel, stride, padding, dilation, groups):
    """Returns the convolution in float32, or of the input's type where that sums."""
    if x.ndim != 4:
        return _general(x, plain(kernel), stride, padding, dilation, groups)
    images = channels_last(x)
    array = _hwio(kernel)
    images, array = alike([images, array])
    pads = _pads(padding, array.shape[:2], dilation)
    return Maps(_two_dimensional(images, array, stride, pads, dilation, groups))


def _hwio(kernel):
    if isinstance(kernel, Kernel):
        return kernel.array
    return kernel.transpose(2, 3, 1, 0)


def _two_dimensional(images, kernel, stride, pads, dilation, groups):
    rows, columns, inner, units = kernel.shape
    channels = images.shape[-1]
    options = {
        "window_strides": stride,
        "padding": pads,
        "rhs_dilation": dilation,
        "dimension_numbers": _DIMENSIONS,
        "feature_group_count": groups,
        "precision": precision(images.dtype),
        "preferred_element_type": jnp.float32,
    }

    def plainly(images, kernel):
        return lax.conv_general_dilated(images, kernel, **options)

    if groups == 1 and (rows, columns) == (1, 1) and not any(map(any, pads)):
        (images,) = windows.windows(images, (1, 1), stride, pads)
        contract = functools.partial(jnp.einsum, "bhwi,io->bhwo")
        return product(contract, images, kernel[0, 0])
    if groups == 1 and images.shape[1:3] == (rows, columns) and not any(map(any, pads)):
        return _of_whole_images(images, kernel)
    if groups > 1 and inner == 1 and units == channels and dilation == (1, 1):

        def by_taps(images, kernel):
            return windows.depthwise(widen(images), widen(kernel), stride, pads)

        return lax.platform_dependent(images, kernel, cpu=by_taps, default=plainly)
    if groups > 1:

        def by_groups(images, kernel):
            return _grouped(images, kernel, stride, pads, dilation, groups)

        return lax.platform_dependent(images, kernel, cpu=by_groups, default=plainly)
    if _is_winograd(images, kernel, stride, pads, dilation):

        def by_winograd(images, kernel):
            return windows.convolve3x3(images, kernel, dilation[0])

        return lax.platform_dependent(images, kernel, cpu=by_winograd, default=plainly)
    if units <= 16:  # see `layers.narrow_conv`
        kernel = jnp.pad(kernel, ((0, 0),) * 3 + ((0, 24 - units),))
        return lax.slice_in_dim(plainly(images, kernel), 0, units, axis=3)
    return plainly(images, kernel)


def _is_winograd(images, kernel, stride, pads, dilation) -> bool:
    rows, columns, channels, units = kernel.shape
    side = dilation[0]
    return (
        (rows, columns) == (3, 3)
        and stride == (1, 1)
        and dilation == (side, side)
        and list(pads) == [(side, side)] * 2
        and min(channels, units) >= 24
        and images.dtype == jnp.float32
    )


def _of_whole_images(images, kernel):
    """Convolves with a kernel of the images' own size, as a matrix product.

    VGG's first layer behind the maps is one, with 411 MB of weights. Its convolution
    takes XLA's CPU backend longer than all other layers together.
    """
    size, units = math.prod(kernel.shape[:3]), kernel.shape[3]
    found = product(jnp.matmul, images.reshape(-1, size), kernel.reshape(size, units))
    return found[:, None, None]


def _grouped(images, kernel, stride, pads, dilation, groups):
    """Convolves each group, as one product of all taps and a batch of groups.

    XLA's CPU backend computes grouped convolutions ten times slower.
    """
    rows, columns, inner, units = kernel.shape
    parts = windows.windows(images, (rows, columns), stride, pads, dilation)
    shape = parts[0].shape[:3]
    parts = [part.reshape(*shape, groups, inner) for part in parts]
    patches = jnp.concatenate(parts, -1)  # [batch, height, width, group, tap * in]
    weights = kernel.reshape(rows * columns * inner, groups, units // groups)
    contract = functools.partial(jnp.einsum, "bhwgk,kgo->bhwgo")
    return product(contract, patches, weights).reshape(*shape, units)


def _general(x, kernel, stride, padding, dilation, groups):
    """Convolves along one or three dimensions."""
    x, kernel = alike([plain(x), kernel])
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        _pads(padding, kernel.shape[2:], dilation),
        rhs_dilation=dilation,
        feature_group_count=groups,
        precision=precision(x.dtype),
        preferred_element_type=jnp.float32,
    )


def _transposed(x, kernel, stride, padding, dilation, output_padding, groups):
    """Convolves the input with zeros between its elements and the kernel reversed."""
    kernel = plain(kernel)  # [in, out / groups, ...]
    rank = kernel.ndim - 2
    sizes = kernel.shape[2:]
    if isinstance(padding, str):
        raise Untranslated(f"a transposed convolution with padding={padding!r}")
    reach = [d * (size - 1) for d, size in zip(dilation, sizes, strict=True)]
    pads = [
        (r - p, r - p + more)
        for r, p, more in zip(reach, _each(padding, rank), output_padding, strict=True)
    ]
    kernel = jnp.flip(kernel, range(2, kernel.ndim))
    inner, units = kernel.shape[0] // groups, kernel.shape[1]
    kernel = kernel.reshape(groups, inner, units, *sizes)
    kernel = kernel.swapaxes(1, 2).reshape(groups * units, inner, *sizes)
    spatial = "HWD"[:rank]
    on_maps = rank == 2
    images = channels_last(x) if on_maps else plain(x)
    images, kernel = alike([images, kernel])
    layout = "NHWC" if on_maps else f"NC{spatial}"
    found = lax.conv_general_dilated(
        images,
        kernel,
        (1,) * rank,
        pads,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=(layout, f"OI{spatial}", layout),
        feature_group_count=groups,
        precision=precision(images.dtype),
        preferred_element_type=jnp.float32,
    )
    return Maps(found) if on_maps else found


def pixel_shuffle(x, factor: int):
    """aten.pixel_shuffle: [b, c * f * f, h, w] -> [b, c, h * f, w * f]."""
    images = channels_last(x)
    batch, height, width, channels = images.shape
    images = images.reshape(batch, height, width, -1, factor, factor)
    images = images.transpose(0, 1, 4, 2, 5, 3)
    units = channels // factor**2
    return Maps(images.reshape(batch, height * factor, width * factor, units))


def pixel_unshuffle(x, factor: int):
    """aten.pixel_unshuffle, the inverse."""
    images = channels_last(x)
    batch, height, width, channels = images.shape
    images = images.reshape(
        batch, height // factor, factor, width // factor, factor, channels
    )
    images = images.transpose(0, 1, 3, 5, 2, 4)
    sizes = (height // factor, width // factor, channels * factor**2)
    return Maps(images.reshape(batch, *sizes))


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """aten.im2col: the windows of an image as columns."""
    images = channels_last(x)
    rows, columns = _each(kernel_size, 2)
    stride, dilation = _each(stride, 2), _each(dilation, 2)
    pads = _pads(padding, (rows, columns), dilation)
    parts = windows.windows(images, (rows, columns), stride, pads, dilation)
    found = jnp.stack(parts, 4)  # [batch, height, width, channel, tap]
    batch, height, width, channels, taps = found.shape
    found = found.transpose(0, 3, 4, 1, 2)
    return found.reshape(batch, channels * taps, height * width)


OPERATORS = {
    "convolution": convolution,
    **{f"conv{rank}d": convolve for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": convolve_transposed for rank in (1, 2, 3)},
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": unfold,
}
