"""Comparing pixels with a unit's edges in 16 bits.

A vector holds twice as many numbers of 16 bits as of 32, and a sketch is nothing but
comparisons. So a pixel's key (see `ops.keys`) becomes a code of 16 bits that sorts
alike, and edges are moved, by little, to where codes change: then `code > edge's code`
says exactly that the key is above the edge's.

As 16 bits are few, codes are coarse up to a unit's `base`, where its lower edges lie,
counted from the first of them, and fine above, around the threshold, counted from the
last edge:

    ceil((min(key, base + 1) - low) / 2^18) + (max(key, base + 1) - base - 1) / 2^shift
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

COARSE = 8  # so many edges, the lowest, are compared coarsely
_COARSE_SHIFT = 18  # all keys that there are make 2^14 codes...
_FINE_BITS = 14  # ...and so do the fine ones


class Codes(NamedTuple):
    """A unit's edges as codes, and what makes codes of its pixels.

    Attributes:
      edges: int16[edge, unit], ascending.
      low, base, top: int32[unit]: keys up to `low` have code 0, from `base` on codes
        are fine, and those from `top` on have the highest.
      shift: uint32[unit], keys of one fine code as a power of 2.
    """

    edges: Int[Array, "edge unit"]
    low: Int[Array, "unit"]
    base: Int[Array, "unit"]
    top: Int[Array, "unit"]
    shift: Int[Array, "unit"]


def snapped(keys: Int[np.ndarray, "edge unit"]) -> Int[np.ndarray, "edge unit"]:
    """Ascending keys moved to where codes change: the lower ones down, the others up.

    The first and the last of a unit stay, but for a first one so close to the others
    that it counts as one of them; so do keys that were moved already.
    """
    shift, below, low, base = _plan(keys)
    above = _coarse_steps(keys, low, base)
    coarse = low + (above << _COARSE_SHIFT)
    return np.concatenate([coarse, keys[-1] - (below << shift)])


def of_edges(keys: Int[np.ndarray, "edge unit"]) -> Codes:
    """The codes of keys from `snapped`."""
    shift, below, low, base = _plan(keys)
    at_base = -((low - base - 1) >> _COARSE_SHIFT)  # rounded up
    fine = at_base + below[0] - below
    coarse = _coarse_steps(keys, low, base)
    return Codes(
        edges=np.concatenate([coarse, fine]).astype(np.int16),
        low=low.astype(np.int32),
        base=base.astype(np.int32),
        top=(keys[-1] + 1).astype(np.int32),
        shift=shift.astype(np.uint32),
    )


def encode(keys: Int[Array, "*pixel unit"], codes: Codes) -> Int[Array, "*pixel unit"]:
    """The codes of pixels, int16."""
    start = codes.base + 1
    # Differences reach 2^32, so they have no sign.
    coarse = (jnp.clip(keys, codes.low, start) - codes.low).astype(jnp.uint32)
    rounding = np.uint32((1 << _COARSE_SHIFT) - 1)
    coarse = (coarse + rounding) >> _COARSE_SHIFT
    fine = (jnp.clip(keys, start, codes.top) - start).astype(jnp.uint32) >> codes.shift
    return (coarse + fine).astype(jnp.int16)


def _plan(keys):
    """(shift, how many fine codes each fine edge is below the last, low, base)."""
    keys = np.asarray(keys, np.int64)
    distance = keys[-1] - keys[COARSE:]
    bits = np.ceil(np.log2(distance[0] + 1)).astype(np.int64)
    shift = np.maximum(bits - _FINE_BITS, 0)
    below = distance >> shift
    base = keys[-1] - ((below[0] + 1) << shift)
    return shift, below, np.minimum(keys[0], base), base


def _coarse_steps(keys, low, base):
    """How many coarse codes each coarse edge is above `low`; none is above `base`."""
    return (np.clip(keys[:COARSE], low, base) - low) >> _COARSE_SHIFT
