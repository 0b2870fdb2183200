"""Warns if an image's feature map depends on the other images of its batch.

It does in a network in training mode, where batch normalization uses the statistics of
the batch and dropout depends on the position. Thresholds then depend on batch_size.
"""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

_TOLERANCE = 1e-3  # of the largest activation: rounding may depend on the position
_COARSE_TOLERANCE = 5e-2  # for 16-bit types


def warn(
    maps_of: Callable[[np.ndarray], dict[str, jax.Array]],
    pixels: Shaped[np.ndarray, "image ..."],
    found: dict[str, jax.Array],
    devices: int,
) -> None:
    """Runs a changed batch through the network, and warns if an image's maps change.

    In that batch, the first half of every device's images moves by one position, and
    zeros surround it.

    Args:
      maps_of: a batch -> {layer: [image, height, width, unit]}.
      pixels: a batch of images, sharded equally over the devices.
      found: feature maps of the batch.
      devices: number of devices.
    """
    share = len(pixels) // devices
    half = share // 2
    if not half:
        return
    there = np.asarray(pixels).reshape(devices, share, *pixels.shape[1:])
    moved = np.zeros_like(there)
    moved[:, 1 : 1 + half] = there[:, :half]
    alone = maps_of(moved.reshape(pixels.shape))
    for name, maps in found.items():
        by_device = (devices, share, *maps.shape[1:])
        first = np.asarray(maps, np.float32).reshape(by_device)[:, :half]
        second = np.asarray(alone[name], np.float32).reshape(by_device)[:, 1 : 1 + half]
        largest = np.abs(first).max()
        off = np.abs(first - second).max()
        wide = maps.dtype.itemsize > 2 or not jnp.issubdtype(maps.dtype, jnp.floating)
        if off > (_TOLERANCE if wide else _COARSE_TOLERANCE) * largest:
            part = off / largest if largest else 1
            warnings.warn(
                f"layer '{name}': an image's feature map changes with the other images "
                f"of its batch (by {part:.0%} of the largest activation), so "
                "thresholds depend on batch_size. Is the network in training mode? "
                "Call model.eval(), or in Linen pass train=False or "
                "use_running_average=True",
                stacklevel=2,
            )
            return
