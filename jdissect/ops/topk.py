"""Keeps the images of highest activation for every unit, mergeable over batches.

As in netdissect, an image's activation is the maximum over the raw (not upsampled)
feature map. Order is value descending, then image ascending: ReLU6 makes ties common.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import float_keys as order

_NO_IMAGE = np.int32(np.iinfo(np.int32).max)
_NO_KEY = np.int32(np.iinfo(np.int32).min)


class TopK(NamedTuple):
    """The top images so far, best first: int32[k, unit] each."""

    key: Int[AnyArray, "k unit"]
    image: Int[AnyArray, "k unit"]


def empty(k: int, units: int) -> TopK:
    """Returns the top images of no data."""
    return TopK(
        jnp.full((k, units), _NO_KEY, jnp.int32),
        jnp.full((k, units), _NO_IMAGE, jnp.int32),
    )


def merge(first: TopK, second: TopK) -> TopK:
    """Returns the best of both; any order and grouping gives the same bits."""
    key = jnp.concatenate([first.key, second.key])
    image = jnp.concatenate([first.image, second.image])
    # ~key reverses the order without overflow.
    key, image = jax.lax.sort((~key, image), dimension=0, num_keys=2)
    k = first.key.shape[0]
    return TopK(~key[:k], image[:k])


def update(
    best: TopK,
    features: Float[AnyArray, "image height width unit"],
    index: Int[AnyArray, " image"],
    valid: Bool[AnyArray, " image"],
) -> TopK:
    """Adds images to the best so far.

    Args:
      best: the top images so far.
      features: canonical float32 feature maps.
      index: number of each image.
      valid: images that count.
    """
    keys = order.to_keys(features.max(axis=(1, 2)))
    keys = jnp.where(valid[:, None], keys, _NO_KEY)
    image = jnp.where(valid, index, _NO_IMAGE)[:, None]
    image = jnp.broadcast_to(image, keys.shape).astype(jnp.int32)
    return merge(best, TopK(keys, image))


def result(
    best: TopK, count: int
) -> tuple[Float[np.ndarray, "unit k"], Int[np.ndarray, "unit k"]]:
    """Returns (value float32[unit, k], image int32[unit, k]) with k <= `count`."""
    keys = np.asarray(best.key)[:count].T
    images = np.asarray(best.image, np.int32)[:count].T
    return order.from_keys_host(keys), np.ascontiguousarray(images)
