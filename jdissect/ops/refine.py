"""Counting sweeps: from a bracket to the exact threshold.

One sweep over the feature maps counts, for every unit, the pixels inside its bracket
by key (see `ops.keys`) in SLOTS equal slots. The slot that holds the threshold is the
next bracket, with exact counts at both ends; when it is one key wide, that is T_k. From
the sketch's bracket two mostly do, three now and then; three do from nothing
(2^32 keys).

Few pixels lie in a bracket (one in a thousand), so a first look marks them as bits
(see `ops.blocks`), and only the marked pixels are made again and counted: of many words
at once the lowest bit, and so on until none is left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from jdissect.ops import bit_masks
from jdissect.ops import float_keys as order
from jdissect.ops.sketch import Bracket
from jdissect.ops.upsample import interpolate

SLOTS = 4096
_TRIANGLE = 128  # flags summed by one row of a matrix product
_GROUPS = 1024  # groups of words looked into at once
_CHUNK = 1024  # words of which a pixel is made at once


def listed(flags: Bool[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """Positions of the true flags, ascending, and how many they are.

    Prefix sums by a matrix product with a triangle of ones: exact (below 2^24), and
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
    position = jnp.where(flags, position, size)  # outside: dropped
    positions = (
        jnp.zeros((size,), jnp.int32)
        .at[position]
        .set(jnp.arange(size, dtype=jnp.int32), mode="drop", unique_indices=True)
    )
    return positions, before[-1] + inside[-1, -1]


def over_words(
    function: Callable[[Any, Int[Array, " chunk"], Bool[Array, " chunk"]], Any],
    carry: Any,
    words: UInt[Array, "block unit"],
) -> Any:
    """Folds `function` over the places of the words that are not 0, by chunks.

    Two levels: listing is what costs, so columns of words are listed first and only
    the listed ones' words again.

    Args:
      function: (carry, ids, here) -> carry, where ids are places in the flattened
        words and `here` says which of them count.
      carry: where the fold starts.
      words: from `bit_masks.pack`.
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


def empty(units: int) -> Int[Array, "unit slot"]:
    """The counts of no data."""
    return jnp.zeros((units, SLOTS), jnp.int32)


def update(
    counts: Int[Array, "unit slot"],
    features: Float[Array, "image height width unit"],
    valid: Bool[Array, " image"],
    bracket: "Arguments",
    geometry: bit_masks.Geometry,
    zero: Int[Array, ""],
) -> Int[Array, "unit slot"]:
    """The counts with the pixels of some more images.

    Args:
      counts: so far.
      features: feature maps of any float type.
      valid: images that count.
      bracket: from `as_arguments`.
      geometry: from `bit_masks.plan`.
      zero: an int32 0 given to the compiled program (see `upsample.fence`).
    """
    rows, columns = geometry.rows, geometry.columns
    units, width = features.shape[-1], columns.target
    # The pixels of a block, by their places on the padded grid.
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
        grid = features.reshape(-1)  # the zeros around it are not worth a copy

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
                """Counts the pixel of every word's lowest bit, and clears that."""
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
                place = jnp.where(marked, place, counts.size)  # outside: dropped
                return bits ^ bit, counts.at[place].add(1, mode="drop")

            bits = jnp.where(here, words.reshape(-1)[ids], 0)
            return jax.lax.while_loop(
                lambda state: (state[0] != 0).any(), lowest, (bits, counts)
            )[1]

        return over_words(count, counts, words), None

    counts = jax.lax.scan(one_image, counts.reshape(-1), (features, valid))[0]
    return counts.reshape(units, SLOTS)


class Arguments(NamedTuple):
    """What a sweep is told of the brackets; one entry a unit.

    Attributes:
      low: int32 key. Key k in (low, high] falls into slot (k - low - 1) >> shift.
      shift: uint32.
      cut_low, cut_high: float32, `float_keys.cuts` of both ends.
    """

    low: Int[Array, " unit"]
    shift: Int[Array, " unit"]
    cut_low: Float[Array, " unit"]
    cut_high: Float[Array, " unit"]


def as_arguments(bracket: Bracket) -> Arguments:
    """The brackets for `update`; a known threshold gets an empty range."""
    span = bracket.high - bracket.low
    bits = np.ceil(np.log2(np.maximum(span, 1))).astype(np.int64)
    low = np.where(span <= 1, bracket.high, bracket.low)
    return Arguments(
        low=low.astype(np.int32),
        shift=np.maximum(bits - int(np.log2(SLOTS)), 0).astype(np.uint32),
        cut_low=order.cuts(low),
        cut_high=order.cuts(bracket.high),
    )


def narrow(
    bracket: Bracket, counts: Int[np.ndarray, "unit slot"], allowed: int
) -> tuple[Bracket, Bool[np.ndarray, " unit"]]:
    """The next bracket, and the units whose bracket turned out wrong.

    A bracket is wrong if the pixels found inside are not as many as its ends say, or
    the threshold cannot be inside. Give such a unit a wider one (`widest`).

    Args:
      bracket: that the counts were made with.
      counts: int64, summed over all devices.
      allowed: `sketch.allowance` of all pixels.
    """
    arguments = as_arguments(bracket)
    low, shift = arguments.low.astype(np.int64), arguments.shift.astype(np.int64)
    known = bracket.high - bracket.low <= 1
    inside = counts.sum(axis=1)
    wrong = ~known & (
        (inside != bracket.above_low - bracket.above_high)
        | (bracket.above_low <= allowed)
        | (bracket.above_high > allowed)
    )
    # Pixels above each slot's upper end; the threshold's slot is the first with few.
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


def widest(low: Int[np.ndarray, " unit"], high: Int[np.ndarray, " unit"], pixels: int):
    """The bracket that cannot be wrong: all keys from the lowest to the highest."""
    return Bracket(
        low=np.asarray(low, np.int64) - 1,
        high=np.asarray(high, np.int64),
        above_low=np.full(len(low), pixels, np.int64),
        above_high=np.zeros(len(low), np.int64),
    )
