"""Counts the bits that label planes and masks share, by population counts of words.

The product has two forms with identical results. A concept covers few of an image's
blocks: in real label maps of 56x56 pixels, one word in eight of a concept in the image
is nonzero. `sparse` visits only those words, in loops; `dense` visits all, which suits
an accelerator.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from jdissect.base.arrays import AnyArray
from jdissect.ops.refine import listed

_UNITS = 256  # units per tile: their masks of 56x56 pixels are 100 KB
_BLOCKS = 128  # maximum number of unrolled blocks
_WORDS = 4  # words of a concept per round


def product(
    planes: UInt[AnyArray, "concept block"], masks: UInt[AnyArray, "block unit"]
) -> Int[Array, "concept unit"]:
    """Counts the bits that each concept's plane shares with each unit's mask."""
    form = sparse if jax.default_backend() == "cpu" else dense
    return form(planes, masks)


def sparse(
    planes: UInt[AnyArray, "concept block"], masks: UInt[AnyArray, "block unit"]
) -> Int[Array, "concept unit"]:
    """`product` over the planes' nonzero words only."""
    blocks, units = masks.shape
    there = planes != 0
    words = planes.reshape(-1)
    places = jnp.pad(listed(there.reshape(-1))[0], (0, _WORDS))
    number = there.sum(axis=1, dtype=jnp.int32)
    end = jnp.cumsum(number)

    def on_concept(bounds):
        start, end = bounds

        def on_words(state):
            first, total = state
            some = jax.lax.dynamic_slice(places, (first,), (_WORDS,))
            for number in range(_WORDS):
                word = jnp.where(first + number < end, words[some[number]], 0)
                row = jax.lax.dynamic_slice_in_dim(masks, some[number] % blocks, 1)
                both = jax.lax.population_count(row[0] & word)
                total = total + both.astype(jnp.int32)
            return first + _WORDS, total

        state = (start, jnp.zeros((units,), jnp.int32))
        return jax.lax.while_loop(lambda state: state[0] < end, on_words, state)[1]

    return jax.lax.map(on_concept, (end - number, end))


def dense(
    planes: UInt[AnyArray, "concept block"], masks: UInt[AnyArray, "block unit"]
) -> Int[Array, "concept unit"]:
    """`product` over all words."""
    blocks, units = masks.shape
    tile, group = min(units, _UNITS), min(blocks, _BLOCKS)
    pad = -blocks % group
    planes = jnp.pad(planes, ((0, 0), (0, pad))).reshape(len(planes), -1, group)
    masks = jnp.pad(masks, ((0, pad), (0, -units % tile)))
    masks = masks.reshape(planes.shape[1], group, -1, tile).transpose(2, 0, 1, 3)

    def on_units(masks):
        def on_concept(plane):
            def on_group(total, pair):
                plane, masks = pair
                for block in range(group):
                    both = jax.lax.population_count(plane[block] & masks[block])
                    total = total + both.astype(jnp.int32)
                return total, None

            start = jnp.zeros((tile,), jnp.int32)
            return jax.lax.scan(on_group, start, (plane, masks))[0]

        return jax.lax.map(on_concept, planes)

    found = jax.lax.map(on_units, masks).transpose(1, 0, 2)
    return found.reshape(len(planes), -1)[:, :units]
