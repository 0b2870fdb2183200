"""Narrows a threshold's bracket to the exact threshold by counting sweeps.

One sweep over the feature maps counts, for every unit, the pixels inside its bracket in
equal slots of keys (see `ops.float_keys`). The slot that contains the threshold is the
next bracket, with exact counts at both ends; once it is one key wide, it is T_k.
With SLOTS slots, two sweeps from the sketch's bracket usually suffice, sometimes three;
from no bracket at all (2^32 keys) three do.

Few pixels lie in a bracket (one in a thousand), so a first pass marks them as bits (see
`ops.bit_masks`), and only the marked pixels are recomputed and counted: the lowest bit
of many words at once, and so on until none is left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks
from jdissect.ops import float_keys as order
from jdissect.ops.sketch import Bracket
from jdissect.ops.upsample import interpolate

SLOTS = 4096
_TRIANGLE = 128  # flags summed per row of a matrix product
_GROUPS = 1024  # groups of words processed at once
_CHUNK = 1024  # words whose next pixel is computed at once


def listed(flags: Bool[AnyArray, " n"]) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """Returns the positions of the true flags, ascending, and their number.

    Prefix sums are a matrix product with a triangle of ones: exact (below 2^24), and
    several times faster than a cumulative sum on a CPU.
    """
    size = flags.shape[0]
    rows = -(-size // _TRIANGLE)
    ones = jnp.pad(flags, (0, rows * _TRIANGLE - size)).astype(jnp.float32)
    triangle = jnp.asarray(np.triu(np.ones((_TRIANGLE, _TRIANGLE), np.float32)))
    inside = jax.lax.dot(
        ones.reshape(rows, _TRIANGLE), triangle, precision=jax.lax.Precision.HIGHEST
    ).astype(jnp.int32)
    before = jnp.cumsum(inside[:, -1]) - inside[:, -1]
    position = (inside + before[:, None]).reshape(-1)[:size] - 1
    position = jnp.where(flags, position, size)  # out of range: dropped
    positions = (
        jnp.zeros((size,), jnp.int32)
        .at[position]
        .set(jnp.arange(size, dtype=jnp.int32), mode="drop", unique_indices=True)
    )
    return positions, before[-1] + inside[-1, -1]


def over_words(
    function: Callable[[Any, Int[Array, " chunk"], Bool[Array, " chunk"]], Any],
    carry: Any,
    words: UInt[AnyArray, "block unit"],
) -> Any:
    """Folds `function` over the positions of the nonzero words, by chunks.

    Listing is the main cost, so it has two levels: first columns of words, then the
    words of the listed columns.

    Args:
      function: (carry, ids, here) -> carry, where ids are positions in the flattened
        words and `here` says which of them count.
      carry: initial value of the fold.
      words: words from `bit_masks.pack`.
    """
    total, units = words.shape
    height = next(n for n in range(min(16, total), 0, -1) if total % n == 0)
    groups = total // height
    marked = (words != 0).reshape(groups, height, units)
    group_list, group_count = listed(marked.any(axis=1).reshape(-1))
    batch = min(group_list.size, _GROUPS)
    group_list = jnp.pad(group_list, (0, -group_list.size % batch))
    chunk = min(batch * height, _CHUNK)
    member = jnp.arange(height, dtype=jnp.int32)[:, None]

    def on_groups(state):
        first, carry = state
        ids = jax.lax.dynamic_slice(group_list, (first,), (batch,))
        here = first + jnp.arange(batch, dtype=jnp.int32) < group_count
        ids = ((ids // units * height + member) * units + ids % units).reshape(-1)
        flags = (words.reshape(-1)[ids] != 0) & jnp.tile(here, height)
        found, count = listed(flags)
        found = jnp.pad(ids[found], (0, -ids.size % chunk))

        def on_words(state):
            start, carry = state
            some = jax.lax.dynamic_slice(found, (start,), (chunk,))
            here = start + jnp.arange(chunk, dtype=jnp.int32) < count
            return start + chunk, function(carry, some, here)

        start = (jnp.zeros((), jnp.int32), carry)
        carry = jax.lax.while_loop(lambda state: state[0] < count, on_words, start)[1]
        return first + batch, carry

    start = (jnp.zeros((), jnp.int32), carry)
    return jax.lax.while_loop(lambda state: state[0] < group_count, on_groups, start)[1]


def empty(units: int, slots: int = SLOTS) -> Int[Array, "unit slot"]:
    """Returns counts of zero."""
    return jnp.zeros((units, slots), jnp.int32)


def update(
    counts: Int[Array, "unit slot"],
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    bracket: "Arguments",
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
) -> Int[Array, "unit slot"]:
    """Adds the pixels of images to the counts.

    Args:
      counts: the counts so far.
      features: feature maps of any float type.
      valid: images that count.
      bracket: brackets from `as_arguments`.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
    """
    rows, columns = geometry.rows, geometry.columns
    units, width = features.shape[-1], columns.target
    # The pixels of a block, by their positions on the padded grid.
    row_tables = [
        jnp.asarray(t) for t in bit_masks.row_groups(rows, bit_masks.BLOCK_ROWS)[:3]
    ]
    column_tables = [
        jnp.asarray(t) for t in (columns.low, columns.high, columns.weight)
    ]

    def inside(values, cuts):
        above, not_above = cuts
        return (values > above) & ~(values > not_above)

    def one_image(counts, image):
        features, valid = image
        features = order.canonical(features)
        cuts = (bracket.cut_low, bracket.cut_high)
        words = bit_masks.pack(inside, features, cuts, geometry, zero)
        words = jnp.where(valid, words, 0)
        grid = features.reshape(-1)  # padding with zeros would cost a copy

        def count(counts, ids, here):
            block, unit = ids // units, ids % units
            block_row = block // geometry.block_grid[1]
            column = block % geometry.block_grid[1] * bit_masks.BLOCK_COLUMNS

            def at(row, column):
                row, column = row - rows.pad, column - columns.pad
                on = (row >= 0) & (row < rows.size)
                on &= (column >= 0) & (column < columns.size)
                place = (row * columns.size + column) * units + unit
                return jnp.where(on, grid[jnp.where(on, place, 0)], 0)

            def lowest(state):
                """Counts the pixel of every word's lowest bit, and clears that bit."""
                bits, counts = state
                bit = bits & (~bits + 1)
                marked = bits != 0
                place = jax.lax.population_count(bit - 1).astype(jnp.int32)
                place = jnp.where(marked, place, 0)
                row, offset = jnp.divmod(place, bit_masks.BLOCK_COLUMNS)
                x = jnp.minimum(column + offset, width - 1)
                left, right, across = (table[x] for table in column_tables)
                top, bottom, down = (table[block_row, row] for table in row_tables)
                values = interpolate(
                    interpolate(at(top, left), at(top, right), across, zero),
                    interpolate(at(bottom, left), at(bottom, right), across, zero),
                    down,
                    zero,
                )
                offset = order.to_keys(values) - bracket.low[unit] - 1
                slot = offset.astype(jnp.uint32) >> bracket.shift[unit]
                place = slot.astype(jnp.int32) + unit * SLOTS
                place = jnp.where(marked, place, counts.size)  # out of range: dropped
                return bits ^ bit, counts.at[place].add(1, mode="drop")

            bits = jnp.where(here, words.reshape(-1)[ids], 0)
            return jax.lax.while_loop(
                lambda state: (state[0] != 0).any(), lowest, (bits, counts)
            )[1]

        return over_words(count, counts, words), None

    found = jax.lax.scan(one_image, counts.reshape(-1), (features, valid))[0]
    return found.reshape(units, SLOTS)


class Arguments(NamedTuple):
    """A sweep's inputs that describe the brackets; one entry per unit.

    Attributes:
      low: int32 key. Key k in (low, high] falls into slot (k - low - 1) >> shift.
      shift: uint32.
      cut_low, cut_high: float32, `float_keys.cuts` of both ends.
    """

    low: Int[AnyArray, " unit"]
    shift: UInt[AnyArray, " unit"]
    cut_low: Float[AnyArray, " unit"]
    cut_high: Float[AnyArray, " unit"]


def as_arguments(bracket: Bracket, slots: int = SLOTS) -> Arguments:
    """Returns the brackets for `update`; a known threshold gets an empty range.

    Args:
      bracket: the brackets.
      slots: number of slots, a power of two.
    """
    span = bracket.high - bracket.low
    bits = np.ceil(np.log2(np.maximum(span, 1))).astype(np.int64)
    low = np.where(span <= 1, bracket.high, bracket.low)
    return Arguments(
        low=low.astype(np.int32),
        shift=np.maximum(bits - int(np.log2(slots)), 0).astype(np.uint32),
        cut_low=order.cuts(low),
        cut_high=order.cuts(bracket.high),
    )


def narrow(
    bracket: Bracket, counts: Int[np.ndarray, "unit slot"], allowed: int
) -> tuple[Bracket, Bool[np.ndarray, " unit"]]:
    """Returns the next bracket, and the units whose bracket turned out wrong.

    A bracket is wrong if the number of pixels inside differs from what its ends say, or
    if the threshold cannot be inside. Give such a unit a wider one (`widest`).

    Args:
      bracket: the bracket that the counts were made with.
      counts: int64, summed over all devices.
      allowed: `sketch.allowance` of all pixels.
    """
    arguments = as_arguments(bracket, counts.shape[1])
    low, shift = arguments.low.astype(np.int64), arguments.shift.astype(np.int64)
    known = bracket.high - bracket.low <= 1
    inside = counts.sum(axis=1)
    wrong = ~known & (
        (inside != bracket.above_low - bracket.above_high)
        | (bracket.above_low <= allowed)
        | (bracket.above_high > allowed)
    )
    # Pixels above each slot's upper end; the first slot with few enough is the one.
    above = bracket.above_high[:, None] + np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    above = above - counts
    slot = np.argmax(above <= allowed, axis=1)
    units = np.arange(len(slot))
    narrowed = Bracket(
        low=low + (slot << shift),
        high=np.minimum(low + ((slot + 1) << shift), bracket.high),
        above_low=(above + counts)[units, slot],
        above_high=above[units, slot],
    )
    keep = known | wrong
    narrowed = Bracket(
        *(np.where(keep, a, b) for a, b in zip(bracket, narrowed, strict=True))
    )
    return narrowed, wrong


def widest(
    low: Int[np.ndarray, " unit"], high: Int[np.ndarray, " unit"], pixels: int
) -> Bracket:
    """Returns the bracket that is never wrong: from the lowest to the highest key."""
    return Bracket(
        low=np.asarray(low, np.int64) - 1,
        high=np.asarray(high, np.int64),
        above_low=np.full(len(low), pixels, np.int64),
        above_high=np.zeros(len(low), np.int64),
    )
