"""Adds all images of a step to a sketch at once; see `ops.sketch`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks, float_keys, sketch
from jdissect.ops.accelerated.count_above import count_above
from jdissect.ops.accelerated.target import Target
from jdissect.ops.sketch import Sketch


def update(
    state: Sketch,
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    cuts: Float[AnyArray, "edge unit"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
    target: Target,
) -> Sketch:
    """Adds the pixels of images to the sketch.

    Args:
      state: the sketch so far.
      features: feature maps of any float type.
      valid: images that count; the others are padding.
      cuts: float32, `float_keys.cuts` of the edges.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
      target: the devices.
    """
    above = count_above(features, cuts, geometry, zero, target)
    above = jnp.where(valid[:, None], above, 0).sum(axis=1, dtype=jnp.int32)
    maps = float_keys.canonical(features)
    low, high = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    invalid = valid[:, None] & ~(jnp.isfinite(low) & jnp.isfinite(high))
    if geometry.rows.pad or geometry.columns.pad:  # padding zeros count
        low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    ends = np.int32(float_keys.KEY_OF_LARGEST), np.int32(float_keys.KEY_OF_LOWEST)
    low, high = (
        jnp.where(valid[:, None], float_keys.to_keys(end), none)
        for end, none in zip((low, high), ends, strict=True)
    )
    there = Sketch(
        above=above,
        low=low.min(axis=0),
        high=high.max(axis=0),
        invalid=invalid.any(axis=0).astype(jnp.int32),
    )
    return sketch.merge(jax.tree.map(jnp.asarray, state), there)
