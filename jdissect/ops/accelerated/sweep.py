"""Counts the pixels in the slots of each unit's bracket; see `ops.refine`.

A slot's pixels are those above its lower end less those above its upper end, so a sweep
is a sketch whose edges are the ends of the slots. Its work grows with their number, so
few slots and more sweeps take less: with 8 slots a sweep finds 3 bits of a threshold.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks, float_keys, refine
from jdissect.ops.accelerated.count_above import count_above
from jdissect.ops.accelerated.target import Target
from jdissect.ops.sketch import Bracket


class Ends(NamedTuple):
    """A sweep's inputs that describe the brackets.

    Attributes:
      cuts: float32[slot + 1, unit], `float_keys.cuts` of the slots' ends.
    """

    cuts: Float[AnyArray, "end unit"]


def as_arguments(bracket: Bracket, slots: int) -> Ends:
    """Returns the brackets for `update`; a known threshold gets an empty range."""
    start = refine.as_arguments(bracket, slots)
    steps = np.arange(slots + 1)[:, None] << start.shift.astype(np.int64)
    return Ends(
        float_keys.cuts(np.minimum(start.low.astype(np.int64) + steps, bracket.high))
    )


def update(
    counts: Int[jax.Array, "unit slot"],
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    ends: Ends,
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
    target: Target,
) -> Int[jax.Array, "unit slot"]:
    """Adds the pixels of images to the counts; arguments as for `refine.update`."""
    above = count_above(features, ends.cuts, geometry, zero, target)
    above = jnp.where(valid[:, None], above, 0).sum(axis=1, dtype=jnp.int32)
    return counts + (above[:-1] - above[1:]).T
