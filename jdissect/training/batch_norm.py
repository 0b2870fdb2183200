"""Batch normalization for training, over groups of images (Ioffe & Szegedy, 2015).

The original trains 256 images on four GPUs, each of which normalizes its own 64. Here a
group is that many consecutive images of the global batch, whatever the devices: a
device with several groups normalizes each separately, and devices that share a group
exchange their means and variances, but with no others.

Running statistics are averaged over all groups. The original keeps those of its first
GPU's images, an artifact of DataParallel. Both estimate the same thing; the average
uses every image, so it is less noisy, and no device is special.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from jdissect.models.layers import ConvNorm
from jdissect.runtime.devices import AXIS


class GroupedBatchNorm(nnx.Module):
    """Normalizes by the statistics of groups, and updates the running ones.

    As in PyTorch, the biased variance normalizes and the running variance is unbiased.
    Statistics are float32 for images of any type.

    Args:
      norm: batch normalization whose parameters and running statistics are used.
      group: images per group.
      devices: number of devices of the step, over the axis `AXIS`; 1 needs no axis.
      momentum: weight of the new statistics in the running ones.
    """

    def __init__(
        self, norm: nnx.BatchNorm, group: int, devices: int = 1, momentum: float = 0.1
    ):
        assert norm.scale is not None and norm.bias is not None
        self.scale, self.bias = norm.scale, norm.bias
        self.mean, self.var = norm.mean, norm.var
        self.epsilon, self.dtype = norm.epsilon, norm.dtype
        self.group, self.devices, self.momentum = group, devices, momentum

    def __call__(
        self, images: Float[Array, "batch height width unit"]
    ) -> Float[Array, "batch height width unit"]:
        """Normalizes this device's shard of the batch."""
        batch, height, width, units = images.shape
        local = min(self.group, batch)
        grouped = images.astype(jnp.float32).reshape(-1, local, height, width, units)
        mean = grouped.mean(axis=(1, 2, 3))
        spread = grouped - mean[:, None, None, None]
        var = jnp.square(spread).mean(axis=(1, 2, 3))
        if self.group > batch:
            mean, var = self._across(mean, var, self.group // batch)
            spread = grouped - mean[:, None, None, None]
        factor = lax.rsqrt(var + self.epsilon) * self.scale[...]
        result = spread * factor[:, None, None, None] + self.bias[...]
        self._move(mean, var, self.group * height * width)
        return result.reshape(images.shape).astype(self.dtype)

    def _across(self, mean, var, span):
        """Returns mean and variance of a group that this device shares with others."""
        groups = [
            list(range(first, first + span)) for first in range(0, self.devices, span)
        ]
        means, variances = lax.all_gather((mean, var), AXIS, axis_index_groups=groups)
        mean = means.mean(axis=0)
        return mean, (variances + jnp.square(means - mean)).mean(axis=0)

    def _move(self, mean, var, count):
        """Updates this device's running statistics; `step` averages over devices."""
        new_mean, new_var = lax.stop_gradient((mean.mean(axis=0), var.mean(axis=0)))
        new_var = new_var * (count / max(count - 1, 1))
        keep = 1 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * new_mean
        self.var[...] = keep * self.var[...] + self.momentum * new_var


def for_training(model: nnx.Module, group: int, devices: int = 1) -> nnx.Module:
    """Replaces every batch normalization of `model` by `GroupedBatchNorm`.

    Names of parameters and statistics do not change.

    Args:
      model: network of unfolded `ConvNorm`s; changed in place and returned.
      group: images per group (see `fits`).
      devices: number of devices of the step.
    """
    layers = [part for _, part in nnx.iter_graph(model) if isinstance(part, ConvNorm)]
    for layer in layers:
        assert isinstance(layer.norm, nnx.BatchNorm)  # it is unfolded
        layer.norm = GroupedBatchNorm(layer.norm, group, devices)
    return model


def fits(group: int, batch: int, devices: int) -> bool:
    """Returns whether groups divide the batch, and devices groups or groups devices.

    Args:
      group: images per group.
      batch: images of the global batch, a multiple of `devices`.
      devices: number of devices that share the batch evenly.
    """
    share = batch // devices
    return batch % group == 0 and (share % group == 0 or group % share == 0)


def fitting(batch: int, devices: int) -> list[int]:
    """Returns every group size that `fits`."""
    candidates = {
        size
        for divisor in range(1, math.isqrt(batch) + 1)
        if batch % divisor == 0
        for size in (divisor, batch // divisor)
    }
    return sorted(size for size in candidates if fits(size, batch, devices))


def average(statistics: nnx.State) -> nnx.State:
    """Averages the running statistics over devices. Only inside a step."""
    return jax.tree.map(lambda array: lax.pmean(array, AXIS), statistics)
