"""Comparing pixels with a unit's edges in 16 bits.

A vector holds twice as many numbers of 16 bits as of 32, and a sketch is nothing but
comparisons. So a pixel's key (see `ops.keys`) becomes a code of 16 bits that sorts
alike, and edges are moved, by little, to where codes change: then `code > edge's code`
says exactly that the key is above the edge's.

Two codes, as one has not enough numbers: a coarse one for the lower edges, counted from
the first of them; a fine one for those around the threshold, counted from the last.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

COARSE = 8  # so many edges, the lowest, are compared coarsely
_COARSE_SHIFT = 17  # all keys that there are make 2^15 codes
_FINE_BITS = 14


class Codes(NamedTuple):
    """A unit's edges as codes, and what makes the fine ones.

    Attributes:
      coarse, fine: int16[edge, unit], ascending.
      low: int32[unit]: keys up to it have the coarse code 0.
      base, top: int32[unit]: keys up to `base` have the lowest fine code, those from
        `top` on the highest.
      shift: uint32[unit], keys of one fine code as a power of 2.
    """

    coarse: Int[Array, "edge unit"]
    fine: Int[Array, "edge unit"]
    low: Int[Array, "unit"]
    base: Int[Array, "unit"]
    top: Int[Array, "unit"]
    shift: Int[Array, "unit"]


def snapped(keys: Int[np.ndarray, "edge unit"]) -> Int[np.ndarray, "edge unit"]:
    """Ascending keys moved to where codes change: the lower ones down, the others up.

    The first and the last of a unit stay; so do keys that were moved already.
    """
    keys = np.asarray(keys, np.int64)
    above = (keys[:COARSE] - keys[0]) >> _COARSE_SHIFT
    coarse = keys[0] + (above << _COARSE_SHIFT)
    shift, below = _below_last(keys)
    return np.concatenate([coarse, keys[-1] - (below << shift)])


def of_edges(keys: Int[np.ndarray, "edge unit"]) -> Codes:
    """The codes of keys from `snapped`."""
    keys = np.asarray(keys, np.int64)
    shift, below = _below_last(keys)
    first = below[0]
    return Codes(
        coarse=((keys[:COARSE] - keys[0]) >> _COARSE_SHIFT).astype(np.int16),
        fine=(first - below).astype(np.int16),
        low=keys[0].astype(np.int32),
        base=(keys[-1] - ((first + 1) << shift)).astype(np.int32),
        top=(keys[-1] + 1).astype(np.int32),
        shift=shift.astype(np.uint32),
    )


def coarse(keys: Int[Array, "*pixel unit"], codes: Codes) -> Int[Array, "*pixel unit"]:
    """The coarse codes of pixels, int16."""
    # Up to 2^32, so without a sign.
    above = (jnp.maximum(keys, codes.low) - codes.low).astype(jnp.uint32)
    rounding = np.uint32((1 << _COARSE_SHIFT) - 1)
    return ((above + rounding) >> _COARSE_SHIFT).astype(jnp.int16)


def fine(keys: Int[Array, "*pixel unit"], codes: Codes) -> Int[Array, "*pixel unit"]:
    """The fine codes of pixels, int16."""
    within = jnp.clip(keys, codes.base + 1, codes.top) - (codes.base + 1)
    return (within.astype(jnp.uint32) >> codes.shift).astype(jnp.int16)


def _below_last(keys):
    """(shift, how many fine codes each fine edge is below the last)."""
    distance = keys[-1] - keys[COARSE:]
    bits = np.ceil(np.log2(distance[0] + 1)).astype(np.int64)
    shift = np.maximum(bits - _FINE_BITS, 0)
    return shift, distance >> shift
