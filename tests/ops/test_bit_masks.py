import jax
import numpy as np
import pytest

from jdissect.ops import bit_masks
from jdissect.ops.bit_masks import BLOCK_COLUMNS, BLOCK_ROWS
from tests.ops import reference


def unpack(words, shape):
    """The flags [height, width, ...] of words [block, ...]."""
    height = -(-shape[0] // BLOCK_ROWS)
    words = words.reshape(height, -1, *words.shape[1:])
    bits = np.arange(32, dtype=np.uint32).reshape(
        BLOCK_ROWS, BLOCK_COLUMNS, *[1] * (words.ndim - 2)
    )
    flags = (words[:, None, :, None] >> bits[None, :, None]) & 1
    flags = flags.reshape(height * BLOCK_ROWS, -1, *words.shape[2:]).astype(bool)
    return flags[: shape[0], : shape[1]]


@pytest.mark.parametrize(
    "grid, shape, units",
    [((7, 7), (56, 56), 5), ((4, 3), (13, 9), 300), ((5, 5), (5, 5), 1)],
)
def test_pack_is_the_mask(grid, shape, units):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(*grid, units)).astype(np.float32)
    cuts = rng.normal(size=units).astype(np.float32)
    geometry = bit_masks.plan(grid, shape)
    pack = jax.jit(
        lambda f, c, zero: bit_masks.pack(lambda v, c: v > c, f, c, geometry, zero)
    )
    words = np.asarray(pack(features, cuts, np.int32(0)))
    expected = reference.upsample(features, shape) > cuts
    np.testing.assert_array_equal(unpack(words, shape), expected)
    assert np.bitwise_count(words).sum() == expected.sum()  # no stray bits at the ends


def test_planes_have_the_masks_layout():
    rng = np.random.default_rng(2)
    flags = rng.random((13, 9, 4)) < 0.5
    words = np.asarray(
        bit_masks.pack_bits(bit_masks.by_block(flags.transpose(2, 0, 1)))
    ).T
    assert words.shape == (4 * 2, 4)
    np.testing.assert_array_equal(unpack(words, (13, 9)), flags)
