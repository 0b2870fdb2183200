"""A streaming sketch of every unit's distribution that brackets its threshold.

The threshold T_k of a unit is the smallest pixel value v with
#(a > v) <= floor(quantile * N). For a few *edges* per unit, the sketch counts how many
pixels exceed each, and keeps the unit's lowest and highest value. The counts are
integers that add up over batches, devices and processes in any order. Edges are placed
beforehand from samples of a few images spread over the data (`ops.edges`): most of them
close to the threshold, the others over the rest of the range, so that the counts also
give the unit's histogram.

Exact counts give exact bounds: the threshold lies between two adjacent edges, whose
counts bound the rank of any value in between. `certify` returns that bracket and those
bounds. A bracket may be wide (if the first images of a stream are unlike the rest) but
never wrong. `ops.refine` narrows it to one value.

Cost: one 8-bit comparison and addition per pixel and edge (see `ops.edge_codes`).
State: 172 bytes per unit.
"""

import dataclasses
import fractions
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks
from jdissect.ops import edge_codes as codes_
from jdissect.ops import float_keys as order
from jdissect.ops.edges import EDGES
from jdissect.ops.upsample import interpolate, stretch

_EDGES_A_ROUND = 8
_ROWS = 4  # maximum rows per tile
_MOST = 255  # pixels that 8 bits can count


class Sketch(NamedTuple):
    """The sketch's state; merged by `merge`.

    Attributes:
      above: int32[edge, unit], number of pixels greater than each edge.
      low, high: int32[unit], keys of the lowest and highest pixel.
      invalid: int32[unit], 1 if an activation was NaN or infinite.
    """

    above: Int[AnyArray, "edge unit"]
    low: Int[AnyArray, " unit"]
    high: Int[AnyArray, " unit"]
    invalid: Int[AnyArray, " unit"]


def empty(units: int) -> Sketch:
    """Returns the sketch of no data."""
    return Sketch(
        above=jnp.zeros((EDGES, units), jnp.int32),
        low=jnp.full((units,), order.KEY_OF_LARGEST, jnp.int32),
        high=jnp.full((units,), order.KEY_OF_LOWEST, jnp.int32),
        invalid=jnp.zeros((units,), jnp.int32),
    )


def merge(first: Sketch, second: Sketch) -> Sketch:
    """Returns the sketch of both data; associative and commutative to the bit."""
    xp = jnp if isinstance(first.above, jax.Array) else np
    return Sketch(
        above=first.above + second.above,
        low=xp.minimum(first.low, second.low),
        high=xp.maximum(first.high, second.high),
        invalid=xp.maximum(first.invalid, second.invalid),
    )


def update(
    sketch: Sketch,
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    codes: codes_.Codes,
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
) -> Sketch:
    """Adds the pixels of images to the sketch.

    Args:
      sketch: the sketch so far.
      features: feature maps of any float type.
      valid: images that count; the others are padding.
      codes: codes of the edges from `edges.place_edges`.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
    """
    rows, columns = geometry.rows, geometry.columns
    # Tiles stay in cache. One row alone would make no loop, see below.
    height = min(max(_MOST // columns.target, 2), _ROWS)
    tiles = tuple(map(jnp.asarray, bit_masks.row_groups(rows, height)))
    # Conditionally adding a number that the compiler does not know is one instruction
    # with AVX-512; adding the comparison's own 1 would be two.
    one, none = (zero + 1).astype(jnp.uint8), np.uint8(0)

    def count(arguments):
        features, codes = arguments
        grid = stretch(features, rows, columns, zero)
        edges = codes.edges.reshape(-1, _EDGES_A_ROUND, grid.shape[-1])

        def encoded(row):
            low, high, weight, used = row
            values = interpolate(grid[low], grid[high], weight, zero)
            # A row that repeats the last one exceeds no edge.
            return jnp.where(used, codes_.encode(values, codes), codes_.LOWEST)

        def on_tile(total, tile):
            # The loop is a barrier: XLA would else recompute the codes for every edge.
            pixels = jax.lax.map(encoded, tile).reshape(-1, grid.shape[-1])
            parts = -(-len(pixels) // _MOST)
            more = -len(pixels) % parts
            pixels = jnp.pad(
                pixels, [(0, more), (0, 0)], constant_values=codes_.LOWEST
            ).reshape(parts, -1, grid.shape[-1])

            def one_round(edges, pixels):
                total = jnp.zeros(edges.shape, jnp.uint8)
                for pixel in range(len(pixels)):
                    total = total + jnp.where(pixels[pixel] > edges, one, none)
                return total

            def one_part(pixels):
                return jax.lax.map(lambda edges: one_round(edges, pixels), edges)

            found = jax.lax.map(one_part, pixels).astype(jnp.int32)
            return total + found.sum(axis=0, dtype=jnp.int32), None

        start = jnp.zeros(edges.shape, jnp.int32)
        return jax.lax.scan(on_tile, start, tiles)[0].reshape(codes.edges.shape)

    def one_image(sketch, image):
        features, valid = image
        features = order.canonical(features)
        low, high = features.min(axis=(0, 1)), features.max(axis=(0, 1))
        finite = jnp.isfinite(low) & jnp.isfinite(high)  # NaN propagates
        if rows.pad or columns.pad:  # padding zeros count
            low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
        there = Sketch(
            above=bit_masks.over_units(count, (features, codes)),
            low=order.to_keys(low),
            high=order.to_keys(high),
            invalid=(~finite).astype(jnp.int32),
        )
        nothing = empty(features.shape[-1])
        there = jax.tree.map(lambda a, b: jnp.where(valid, a, b), there, nothing)
        return merge(sketch, there), None

    return jax.lax.scan(one_image, sketch, (features, valid))[0]


def allowance(pixels: int, quantile: float) -> int:
    """Returns floor(quantile * pixels) without rounding: 0.01 is one in a hundred."""
    return math.floor(fractions.Fraction(str(quantile)) * pixels)


class Bracket(NamedTuple):
    """A unit's threshold has its key in (low, high]; int64[unit] each.

    Attributes:
      low, high: keys; if one apart, the threshold is known.
      above_low, above_high: exact number of pixels greater than either end.
    """

    low: Int[np.ndarray, " unit"]
    high: Int[np.ndarray, " unit"]
    above_low: Int[np.ndarray, " unit"]
    above_high: Int[np.ndarray, " unit"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the sketch alone guarantees.

    Attributes:
      threshold: float32[unit], the estimate.
      bracket: contains the exact threshold.
      rank_error: int64[unit], an upper bound of |#(a > threshold) - allowance|, or 0
        where the threshold is certainly exact.
    """

    threshold: Float[np.ndarray, " unit"]
    bracket: Bracket
    rank_error: Int[np.ndarray, " unit"]


def certify(
    sketch: Sketch, edges: Int[np.ndarray, "edge unit"], pixels: int, quantile: float
) -> Certificate:
    """Returns the threshold's bracket, an estimate in it, and its largest error."""
    allowed = allowance(pixels, quantile)
    low, high = np.asarray(sketch.low, np.int64), np.asarray(sketch.high, np.int64)
    keys = np.concatenate([(low - 1)[None], edges, high[None]])
    above = np.concatenate(
        [
            np.full_like(low, pixels)[None],
            np.asarray(sketch.above, np.int64),
            np.zeros_like(low)[None],
        ]
    )
    # Edges beyond the extremes add no information.
    keys = np.clip(keys, low - 1, high)
    first = np.argmax(above <= allowed, axis=0)
    at = lambda table, row: np.take_along_axis(table, row[None], axis=0)[0]  # noqa: E731
    bracket = Bracket(
        low=at(keys, first - 1),
        high=at(keys, first),
        above_low=at(above, first - 1),
        above_high=at(above, first),
    )
    exact = bracket.high - bracket.low == 1
    # Between two edges the logarithm of the rank is nearly straight.
    bottom = order.from_keys_host(bracket.low).astype(np.float64)
    top = order.from_keys_host(bracket.high).astype(np.float64)
    rank_low = np.log(np.maximum(bracket.above_low, 0.5))
    rank_high = np.log(np.maximum(bracket.above_high, 0.5))
    part = (rank_low - np.log(max(allowed, 0.5))) / np.maximum(
        rank_low - rank_high, 1e-12
    )
    value = bottom + (top - bottom) * np.clip(part, 0, 1)
    threshold = np.where(exact, top, np.clip(value, bottom, top)).astype(np.float32)
    keys_ = np.clip(order.to_keys_host(threshold), bracket.low, bracket.high)
    bound = np.maximum(bracket.above_low - allowed, allowed - bracket.above_high)
    return Certificate(
        threshold=order.from_keys_host(keys_),
        bracket=bracket,
        rank_error=np.where(exact, 0, bound),
    )


def histogram(
    sketch: Sketch, edges: Int[np.ndarray, "edge unit"], pixels: int
) -> tuple[Int[np.ndarray, "unit bin"], Float[np.ndarray, "unit bin_and_one"]]:
    """Returns counts and edges in NumPy's convention: [edge, next), the last closed.

    Returns:
      (counts int64[unit, bins], edges float32[unit, bins + 1]), bins = EDGES + 1.
    """
    low, high = np.asarray(sketch.low, np.int64), np.asarray(sketch.high, np.int64)
    # "Above an edge" means from the next float on. Edges beyond the highest value stay,
    # since only NumPy's last bin is closed.
    inner = np.maximum(edges + 1, low)
    last = np.maximum(high, inner[-1])
    above = np.concatenate(
        [
            np.full_like(low, pixels)[None],
            np.asarray(sketch.above, np.int64),
            np.zeros_like(low)[None],
        ]
    )
    keys = np.concatenate([low[None], inner, last[None]])
    return (above[:-1] - above[1:]).T, order.from_keys_host(keys).T
