"""Compares pixels with a unit's edges in 8 bits.

A vector holds four times as many 8-bit as 32-bit numbers, and the work of a sketch is
comparisons. So each pixel gets an 8-bit code that increases monotonically with its
value, and each edge moves up to the next change of code: then `code > edge's code`
holds exactly if the pixel is above the moved edge.

With only 8 bits, codes are coarse up to `base`, where a unit's lower edges lie, and
fine from there to `top`, around the threshold. For a pixel v, with x = scale * v
clipped to `bottom` .. `top`:

    round(min(x, base) / 2^j) + round(max(x, base)) + [v > lowest] + [v > highest] + ...

The last two terms separate the values that pile up at either end (a ReLU's 0, a
ReLU6's 6). Adding a large number and taking the sum's bits rounds: every operation is
rounded by itself and monotone, in NumPy as on a device.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import float_keys as order

COARSE = 8  # number of edges, from the lowest, with coarse codes
_COARSE_CODES = 20
_FINE_CODES = 228
_MOST = 255  # range of the codes
LOWEST = np.int8(-128)  # code
_ROUNDING = np.float32(1.5 * 2**23)  # floats between 2^23 and 2^24 are the integers
# Bound of scaled numbers: their sum with _ROUNDING - base is then about _ROUNDING.
_LARGEST = 2.0**44
_LARGEST_SCALE = 2.0**96


class Codes(NamedTuple):
    """A unit's edges as codes, and the parameters that encode its pixels.

    Attributes:
      edges: int8[edge, unit], ascending.
      scale: float32[unit], scales a fine code to 1.
      bottom, base, top: float32[unit], scaled: where codes begin, become fine, and end.
      to_coarse, to_fine: float32[unit], added to a scaled number to round it.
      bias: int32[unit], offset of the sum of both bit patterns.
      lowest, highest: float32[unit], pixels above either get one code more.
    """

    edges: Int[AnyArray, "edge unit"]
    scale: Float[AnyArray, " unit"]
    bottom: Float[AnyArray, " unit"]
    base: Float[AnyArray, " unit"]
    top: Float[AnyArray, " unit"]
    to_coarse: Float[AnyArray, " unit"]
    to_fine: Float[AnyArray, " unit"]
    bias: Int[AnyArray, " unit"]
    lowest: Float[AnyArray, " unit"]
    highest: Float[AnyArray, " unit"]


def encode(
    values: Float[AnyArray, "*pixel unit"], codes: Codes
) -> Int[AnyArray, "*pixel unit"]:
    """Returns the codes of pixels, int8; for NumPy arrays computed in NumPy."""
    xp = np if isinstance(values, np.ndarray) else jnp
    return (_sums(values, codes, xp) - codes.bias).astype(np.int8)


def of_edges(
    keys: Int[np.ndarray, "edge unit"],
) -> tuple[Codes, Int[np.ndarray, "edge unit"]]:
    """Returns codes for ascending edges, and the keys of the edges they stand for.

    Those are at or above the given ones. A unit's first and last edge do not move.
    """
    keys = np.asarray(keys, np.int64)
    with np.errstate(over="ignore"):  # int32 wraps, as it does on a device
        codes = _plan(keys)
        edges = encode(order.from_keys_host(keys), codes)
        # Bisect for the highest key that has the edge's code.
        low, high = keys, np.broadcast_to(keys[-1] + 1, keys.shape)
        while (high - low > 1).any():
            middle = (low + high) // 2
            same = encode(order.from_keys_host(middle), codes) <= edges
            low, high = np.where(same, middle, low), np.where(same, high, middle)
    return codes._replace(edges=edges), low


def _sums(values, codes, xp):
    scaled = values * codes.scale
    # `minimum` and `maximum` would also look for NaN.
    scaled = xp.where(scaled > codes.bottom, scaled, codes.bottom)
    scaled = xp.where(scaled < codes.top, scaled, codes.top)
    coarse = xp.where(scaled < codes.base, scaled, codes.base) + codes.to_coarse
    fine = xp.where(scaled > codes.base, scaled, codes.base) + codes.to_fine
    ends = [(values > end).astype(np.int32) for end in (codes.lowest, codes.highest)]
    return coarse.view(np.int32) + fine.view(np.int32) + ends[0] + ends[1]


def _plan(keys) -> Codes:
    """Returns the encoding parameters for edges with these keys, without the edges."""
    ends = order.from_keys_host(keys[[0, COARSE, -2]])
    bottom, base, top = ends.astype(np.float64)
    scale = _FINE_CODES / np.maximum(top - base, 1e-45)
    size = np.maximum(np.abs(ends).max(axis=0), 1e-45)
    scale = np.minimum(scale, np.minimum(_LARGEST_SCALE, _LARGEST / size))
    while True:
        codes = _scaled(keys, scale.astype(np.float32), ends)
        codes = codes._replace(bias=_sums(ends[0], codes, np) - int(LOWEST))
        highest = order.from_keys_host(keys[-1] + 1)
        most = _sums(highest, codes, np) - codes.bias - int(LOWEST)
        # Rounding adds codes where numbers are large compared to their differences.
        if (most <= _MOST).all():
            return codes
        scale = np.where(most <= _MOST, scale, scale / 2)


def _scaled(keys, scale, ends) -> Codes:
    bottom, base, top = (np.asarray(end * scale, np.float32) for end in ends)
    steps = np.maximum((base - bottom).astype(np.float64) / _COARSE_CODES, 1)
    step = np.exp2(np.ceil(np.log2(steps))).astype(np.float32)
    return Codes(
        edges=np.zeros((0, len(scale)), np.int8),
        scale=scale,
        bottom=bottom,
        base=base,
        top=top + 1,  # so that the edge there ends
        to_coarse=_ROUNDING * step - bottom,
        to_fine=_ROUNDING - base,
        bias=np.zeros(len(scale), np.int32),
        lowest=order.cuts(keys[0]),
        highest=order.cuts(keys[-1]),
    )
