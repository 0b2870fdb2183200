"""Counts the bits that label planes and masks share, by population counts of words.

A concept covers few of an image's blocks: in real label maps of 56x56 pixels, one word
in eight of a concept in the image is nonzero. Only those words are visited.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from jdissect.base.arrays import AnyArray
from jdissect.ops.refine import listed

_WORDS = 4  # words of a concept per round


def product(
    planes: UInt[AnyArray, "concept block"], masks: UInt[AnyArray, "block unit"]
) -> Int[Array, "concept unit"]:
    """Counts the bits that each concept's plane shares with each unit's mask."""
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
