"""Translates normalizations, in float32 inside: statistics, scale and shift."""

import jax.numpy as jnp
from jax import lax
from jdissect.converters.torch_graph.values import (
    Maps,
    Untranslated,
    channels_last,
    in_float32,
    on_plain,
    plain,
    widen,
)


@in_float32
def batch_norm(
    x,
    weight,
    bias,
    running_mean,
    running_var,
    training=False,
    momentum=0.1,
    eps=1e-5,
    cudnn_enabled=True,
):
    """aten.batch_norm with stored statistics."""
    if training or running_mean is None:
        raise Untranslated(
            "it normalizes by the statistics of the batch (it has no stored ones), so "
            "an image's features would depend on its batch"
        )
    factor = lax.rsqrt(widen(running_var) + eps)
    if weight is not None:
        factor = widen(weight) * factor
    shift = -widen(running_mean) * factor
    if bias is not None:
        shift = shift + widen(bias)
    if isinstance(x, Maps):
        return Maps(x.array * factor + shift)
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * factor.reshape(shape) + shift.reshape(shape)


def batch_norm_without_training(
    x, weight, bias, running_mean, running_var, momentum, eps
):
    """aten._native_batch_norm_legit_no_training."""
    found = batch_norm(x, weight, bias, running_mean, running_var, eps=eps)
    return found, None, None


def _normalized(x, axes, eps):
    """Returns x with mean 0 and variance 1 over axes, the mean, 1 / the deviation."""
    mean = x.mean(axes, keepdims=True)
    centered = x - mean
    factor = lax.rsqrt((centered * centered).mean(axes, keepdims=True) + eps)
    return centered * factor, mean, factor


def _scaled(x, weight, bias):
    if weight is not None:
        x = x * widen(weight)
    return x if bias is None else x + widen(bias)


@on_plain
@in_float32
def native_layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """aten.native_layer_norm: the result, the mean, 1 / the deviation."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    found, mean, factor = _normalized(x, axes, eps)
    return _scaled(found, weight, bias), mean, factor


def layer_norm(
    x, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True
):
    """aten.layer_norm over the last dimensions."""
    return native_layer_norm(x, normalized_shape, weight, bias, eps)[0]


@on_plain
@in_float32
def rms_norm(x, normalized_shape, weight=None, eps=None):
    """aten.rms_norm: divided by the root of the mean square."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    eps = jnp.finfo(jnp.float32).eps if eps is None else eps
    factor = lax.rsqrt((x * x).mean(axes, keepdims=True) + eps)
    return _scaled(x * factor, weight, None)


@in_float32
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """aten.group_norm: over the positions and the channels of a group."""
    if x.ndim == 4:
        images = channels_last(x)
        batch, height, width, channels = images.shape
        grouped = images.reshape(batch, height, width, num_groups, -1)
        found, _, _ = _normalized(grouped, (1, 2, 4), eps)
        return Maps(_scaled(found.reshape(images.shape), weight, bias))
    x = plain(x)
    grouped = x.reshape(x.shape[0], num_groups, -1)
    found, _, _ = _normalized(grouped, (2,), eps)
    shape = (-1,) + (1,) * (x.ndim - 2)
    weight, bias = (p if p is None else p.reshape(shape) for p in (weight, bias))
    return _scaled(found.reshape(x.shape), weight, bias)


def native_group_norm(x, weight, bias, N, C, HxW, group, eps):
    """aten.native_group_norm; the statistics are not returned."""
    return group_norm(x, group, weight, bias, eps), None, None


def instance_norm(
    x,
    weight,
    bias,
    running_mean,
    running_var,
    use_input_stats,
    momentum,
    eps,
    cudnn_enabled,
):
    """aten.instance_norm: over the positions of an image."""
    if not use_input_stats:
        return batch_norm(x, weight, bias, running_mean, running_var, eps=eps)
    return group_norm(x, x.shape[1], weight, bias, eps)


OPERATORS = {
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_without_training,
    "native_layer_norm": native_layer_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "native_group_norm": native_group_norm,
    "instance_norm": instance_norm,
}
