"""Building blocks of the networks: convolution with batch normalization, mean, head.

Images and feature maps are [batch, height, width, channels], kernels are
[height, width, in, out] (NHWC, HWIO). Parameters are float32 for every `dtype` of the
computation.

Three choices make runs bit-reproducible. Spatial means are matrix products, because
XLA's CPU backend may split a float reduction by the number of devices. Convolutions
with few output channels are computed with more (see `narrow_conv`). And float32 is
requested at full precision: matrix units of GPUs and TPUs would otherwise round the
factors.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from jdissect.ops import forms, winograd

Padding = str | Sequence[tuple[int, int]]

# The original recipes initialize convolutions from N(0, 2 / (k * k * out)).
_HE_NORMAL = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def precision_of(dtype: str) -> lax.Precision:
    """Returns the matrix product precision that gives `dtype` on any backend.

    For float32, HIGH would be faster on matrix units, but it errs some ten times as
    much as two float32 programs differ (benchmarks/three_passes.py).
    """
    return lax.Precision.HIGHEST if dtype == "float32" else lax.Precision.DEFAULT


def depthwise_conv(images, kernel, strides, padding, *_, **__) -> Array:
    """Convolves with one filter per channel, as a sum over the kernel's taps.

    XLA's CPU backend computes grouped convolutions ten times slower. Takes the
    arguments that `nnx.Conv` passes to `lax.conv_general_dilated`; kernel is
    [height, width, 1, channels]. Sums in float32 for images of any type.
    """
    height, width = images.shape[1:3]
    rows, columns = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(
            (height, width), (rows, columns), strides, padding
        )
    images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    out_height = (images.shape[1] - rows) // strides[0] + 1
    out_width = (images.shape[2] - columns) // strides[1] + 1
    total = None
    for row in range(rows):
        for column in range(columns):
            window = images[
                :,
                row : row + (out_height - 1) * strides[0] + 1 : strides[0],
                column : column + (out_width - 1) * strides[1] + 1 : strides[1],
            ]
            term = window.astype(jnp.float32) * kernel[row, column, 0]
            total = term if total is None else total + term
    assert total is not None  # a kernel has a pixel
    return total.astype(images.dtype)


def pointwise_conv(images, kernel, strides, *_, precision=None, **__) -> Array:
    """Computes a 1x1 convolution without padding as a matrix product.

    Up to four times faster on CPUs than the convolution. Arguments as for
    `depthwise_conv`; kernel is [1, 1, in, out].
    """
    images = images[:, :: strides[0], :: strides[1]]
    rows = images.reshape(-1, images.shape[-1])
    product = jnp.dot(rows, kernel[0, 0], precision=precision)
    return product.reshape(*images.shape[:3], -1)


def narrow_conv(images, kernel, *options, **more) -> Array:
    """Computes a convolution to a few channels as one to 24.

    XLA's CPU backend (Eigen) computes 24 channels of a pixel at a time, in three
    registers of eight. Up to 16 channels, it sums some pixels in another order; which
    ones depends on the image's position in the batch and on the number of threads.
    Arguments as for `depthwise_conv`.
    """
    channels = kernel.shape[-1]
    if forms.on_cpu():
        kernel = jnp.pad(kernel, ((0, 0),) * 3 + ((0, 24 - channels),))
    found = lax.conv_general_dilated(images, kernel, *options, **more)
    return found[..., :channels]


def prepared_conv(images, kernel, *options, rhs_dilation, **more) -> Array:
    """Computes a 3x3 convolution, with a plain or a prepared kernel of stride 1.

    Arguments as for `depthwise_conv`; a prepared kernel is [36, in, out] for
    `ops.winograd`, or [9 * out, in] for `taps_conv` (see `prepare`).
    """
    if kernel.ndim == 3:
        return winograd.convolve(images, kernel, rhs_dilation[0])
    if kernel.ndim == 2:
        return taps_conv(images, kernel, rhs_dilation[0], more["precision"])
    more["rhs_dilation"] = rhs_dilation
    return lax.conv_general_dilated(images, kernel, *options, **more)


def taps_conv(images, kernel, dilation, precision=None) -> Array:
    """Computes a size-preserving 3x3 convolution: one product of all taps, then a sum.

    For small maps of many channels, where reading the weights dominates: XLA's CPU
    backend is three times as fast with a matrix product's weights.

    Args:
      kernel: [9 * out, in].
      dilation: distance of the taps.
    """
    batch, height, width, channels = images.shape
    product = lax.dot_general(
        images.reshape(-1, channels),
        kernel,
        (((1,), (1,)), ((), ())),
        precision=precision,
    )
    product = product.reshape(batch, height, width, 9, -1)
    around = (dilation, dilation)
    product = jnp.pad(product, ((0, 0), around, around, (0, 0), (0, 0)))
    taps = (
        product[:, row : row + height, column : column + width, tap]
        for tap, (row, column) in enumerate(
            dilation * np.indices((3, 3)).reshape(2, 9).T
        )
    )
    return functools.reduce(jnp.add, taps)


def conv3x3(images, kernel, precision=None) -> Array:
    """Computes a size-preserving 3x3 convolution, with a kernel of any form."""
    return prepared_conv(
        images,
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        rhs_dilation=(1, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


class ConvNorm(nnx.Module):
    """A convolution and its batch normalization, or both folded into one.

    Unfolded, the parameters are `conv.kernel` and `norm.{scale,bias,mean,var}`, and
    `model.train()` and `model.eval()` select the statistics; a new model is in
    inference mode. Folded (see `fold_batch_norm`), they are `conv.kernel` and
    `conv.bias`.

    Args:
      in_features, out_features: number of channels.
      kernel_size: side of the square kernel.
      stride: stride along both axes.
      padding: ((top, bottom), (left, right)) or 'SAME', TensorFlow's rule, which pads
        bottom and right by one more if the sum is odd.
      dilation: distance of the kernel's taps.
      depthwise: one filter per channel; needs in_features == out_features.
      groups: number of independent groups of channels; divides both.
      fast: form that `prepare` gives to a 3x3 kernel of stride 1 that keeps the size:
        'winograd', 'taps', or '' for none. 'winograd' is also a form for training
        (`training.convolution`).
      epsilon: added to the variance.
      folded: whether batch normalization is folded into the convolution.
      inference: whether it is never trained; so if folded.
      dtype: type of the computation, 'float32' or 'bfloat16'.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding,
        dilation: int = 1,
        depthwise: bool = False,
        groups: int = 1,
        fast: str = "",
        epsilon: float = 1e-5,
        folded: bool = False,
        inference: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {}
        inference = inference or folded
        self.fast = fast if (kernel_size, stride, groups) == (3, 1, 1) else ""
        if depthwise:
            options["conv_general_dilated"] = depthwise_conv
        elif kernel_size == 1:
            options["conv_general_dilated"] = pointwise_conv
        elif self.fast:
            options["conv_general_dilated"] = prepared_conv
        elif inference and out_features <= 16 and groups == 1:
            options["conv_general_dilated"] = narrow_conv
        self.conv = nnx.Conv(
            in_features,
            out_features,
            (kernel_size, kernel_size),
            strides=stride,
            padding=padding,
            kernel_dilation=dilation,
            feature_group_count=in_features if depthwise else groups,
            use_bias=folded,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.float32,
            precision=precision_of(dtype),
            kernel_init=_he_normal,
            rngs=rngs,
            **options,
        )
        self.norm: Callable[[Array], Array] | None
        if folded:
            self.norm = None
        else:
            self.norm = nnx.BatchNorm(
                out_features,
                use_running_average=True,
                momentum=0.9,
                epsilon=epsilon,
                dtype=jnp.dtype(dtype),
                param_dtype=jnp.float32,
                rngs=rngs,
            )

    parts: nnx.List  # only of what `pyramid.prepare` has changed

    def __call__(
        self, images: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height2 width2 unit"]:
        images = self.conv(images)
        return images if self.norm is None else self.norm(images)

    def normalize(
        self, images: Float[Array, "batch height width unit"]
    ) -> Float[Array, "batch height width unit"]:
        """Applies what follows the convolution: bias or batch normalization."""
        if self.norm is None:
            bias = self.conv.bias
            assert bias is not None  # it is folded
            return images + bias[...].astype(images.dtype)
        return self.norm(images)


def prepare(model: nnx.Module) -> None:
    """Converts kernels of `ConvNorm(fast=...)` for fast float32 inference on CPUs.

    Other backends' own convolutions are as fast. The model must hold arrays; it cannot
    be trained or saved afterwards.
    """
    forms = {"winograd": winograd.transform_kernel, "taps": _kernel_of_taps}
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, ConvNorm) and layer.fast:
            kernel = forms[layer.fast](np.asarray(layer.conv.kernel[...]))
            layer.conv.kernel = nnx.Param(jnp.asarray(kernel))


def _kernel_of_taps(kernel):
    """Reorders a kernel [3, 3, in, out] to [9 * out, in]."""
    return kernel.transpose(0, 1, 3, 2).reshape(-1, kernel.shape[2])


def fold_batch_norm(
    parameters: dict[str, np.ndarray],
    epsilon: float,
    unfolded: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Folds every `ConvNorm`'s batch normalization into its convolution.

    y = (conv(x, kernel) - mean) * s + bias, where s = scale / sqrt(var + epsilon), is
    conv(x, kernel * s) + (bias - mean * s). Computed in float64, rounded once.

    Args:
      parameters: name -> float32 array, all parameters of an unfolded network.
      epsilon: epsilon of the network's batch normalization.
      unfolded: {name of a ConvNorm in the folded network: the one that it copies}; it
        is not folded.

    Returns:
      The parameters of the folded network; those outside a ConvNorm are unchanged.
    """
    folded = {k: v for k, v in parameters.items() if ".norm." not in f".{k}"}
    for name in parameters:
        if not name.endswith("norm.scale"):
            continue
        prefix = name.removesuffix("norm.scale")
        scale, bias, mean, var = (
            parameters[f"{prefix}norm.{part}"].astype(np.float64)
            for part in ("scale", "bias", "mean", "var")
        )
        factor = scale / np.sqrt(var + epsilon)
        kernel = parameters[f"{prefix}conv.kernel"]
        folded[f"{prefix}conv.kernel"] = (kernel * factor).astype(np.float32)
        folded[f"{prefix}conv.bias"] = (bias - mean * factor).astype(np.float32)
    for copy, original in (unfolded or {}).items():
        for name, array in parameters.items():
            if name.startswith(f"{original}."):
                folded[copy + name.removeprefix(original)] = array
    return folded


def spatial_mean(
    maps: Float[Array, "batch height width unit"],
) -> Float[Array, "batch unit"]:
    """Returns the mean over height and width in float32, as a matrix product."""
    batch, height, width, units = maps.shape
    pixels = maps.reshape(batch, height * width, units)
    weights = jnp.full((height * width,), 1 / (height * width), maps.dtype)
    return jnp.einsum(
        "bpu,p->bu",
        pixels,
        weights,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def classifier_head(features: int, classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a float32 linear layer, initialized as in PyTorch: U(+-1/sqrt(in))."""
    bound = features**-0.5
    uniform = functools.partial(_uniform, bound)
    return nnx.Linear(
        features,
        classes,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        precision=lax.Precision.HIGHEST,
        kernel_init=uniform,
        bias_init=uniform,
        rngs=rngs,
    )


def _he_normal(key, shape, dtype=jnp.float32, **_):
    if key is None:  # only the shape is needed; tracing takes seconds
        return jnp.zeros(shape, dtype)
    return _HE_NORMAL(key, shape, dtype)


def _uniform(bound: float, key, shape, dtype=jnp.float32, **_):
    if key is None:
        return jnp.zeros(shape, dtype)
    return jax.random.uniform(key, shape, dtype, -bound, bound)
