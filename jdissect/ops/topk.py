"""The images of highest activation for every unit, running and mergeable.

By the maximum over the raw (not upsampled) feature map, as in netdissect. Order is
value descending, then image ascending: with ReLU6 ties are the rule.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdissect.ops import float_keys as order

_NO_IMAGE = np.int32(np.iinfo(np.int32).max)
_NO_KEY = np.int32(np.iinfo(np.int32).min)


class TopK(NamedTuple):
    """The best so far, best first: int32[k, unit] each."""

    key: Int[Array, "k unit"]
    image: Int[Array, "k unit"]


def empty(k: int, units: int) -> TopK:
    """The best of no images."""
    return TopK(
        jnp.full((k, units), _NO_KEY, jnp.int32),
        jnp.full((k, units), _NO_IMAGE, jnp.int32),
    )


def merge(first: TopK, second: TopK) -> TopK:
    """The best of both; in any order and grouping the same to the bit."""
    key = jnp.concatenate([first.key, second.key])
    image = jnp.concatenate([first.image, second.image])
    # ~key reverses the order without overflow.
    key, image = jax.lax.sort((~key, image), dimension=0, num_keys=2)
    k = first.key.shape[0]
    return TopK(~key[:k], image[:k])


def update(
    best: TopK,
    features: Float[Array, "image height width unit"],
    index: Int[Array, " image"],
    valid: Bool[Array, " image"],
) -> TopK:
    """The best with some more images.

    Args:
      best: so far.
      features: canonical float32 feature maps.
      index: each image's number.
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
    """(value float32[unit, k], image int32[unit, k]) with k at most `count` images."""
    keys = np.asarray(best.key)[:count].T
    images = np.asarray(best.image, np.int32)[:count].T
    return order.from_keys_host(keys), np.ascontiguousarray(images)
