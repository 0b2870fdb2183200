"""Comparisons in 16 bits say what comparisons of keys say."""

import numpy as np
import pytest

from jdissect.ops import codes, keys
from jdissect.ops.edges import EDGES

UNITS = 40


def _edges(rng, low, high):
    """Ascending keys between two floats, for every unit."""
    drawn = rng.uniform(low, high, (EDGES, UNITS)).astype(np.float32)
    return np.sort(keys.to_keys_host(drawn), axis=0)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 6), (-3e38, 3e38), (-1e-38, 1e-38), (0.99, 1), (-2, -1)]
)
def test_codes_compare_as_keys_do(low, high):
    rng = np.random.default_rng(0)
    edges = codes.snapped(_edges(rng, low, high))
    assert (np.diff(edges, axis=0) >= 0).all()
    np.testing.assert_array_equal(codes.snapped(edges), edges)
    coded = codes.of_edges(edges)
    assert coded.edges.dtype == np.int16
    assert (np.diff(coded.edges, axis=0) >= 0).all() and (coded.edges >= 0).all()
    # Every edge, its neighbours, zero, and the ends.
    near = [edges + d for d in (-1, 0, 1)]
    ends = np.array([0, -1, 1, keys.KEY_OF_LOWEST, keys.KEY_OF_LARGEST])
    near.append(np.broadcast_to(ends[:, None], (5, UNITS)))
    near = np.clip(np.concatenate(near), keys.KEY_OF_LOWEST, keys.KEY_OF_LARGEST)
    pixels = near.astype(np.int32)
    found = np.asarray(codes.encode(pixels, coded))[:, None] > coded.edges
    np.testing.assert_array_equal(found, near[:, None] > edges)


def test_edges_hardly_move():
    """The lower ones by 2^18 keys, the others by 2^-13 of their distance."""
    before = _edges(np.random.default_rng(1), 0, 6)
    moved = codes.snapped(before) - before
    assert (moved[: codes.COARSE] <= 0).all()
    assert (moved[: codes.COARSE] > -(2**18)).all()
    distance = before[-1] - before[codes.COARSE]
    assert (moved[codes.COARSE :] >= 0).all()
    assert (moved[codes.COARSE :] < np.maximum(distance * 2.0**-13, 1)).all()


def test_what_is_piled_up_stays_apart():
    """Where a ReLU6 leaves most pixels: at 0, and at 6."""
    edges = _edges(np.random.default_rng(2), 0, 6)
    edges[:3] = 0
    edges[-1] = keys.to_keys_host(np.float32([6]))[0] - 1
    kept = codes.snapped(edges)
    np.testing.assert_array_equal(kept[:3], 0)
    np.testing.assert_array_equal(kept[-1], edges[-1])


def test_edges_that_are_all_one():
    edges = np.full((EDGES, 2), 12345)
    kept = codes.snapped(edges)
    np.testing.assert_array_equal(kept[codes.COARSE :], 12345)
    coded = codes.of_edges(kept)
    found = codes.encode(np.array([[12345], [12346]], np.int32), coded)
    above = np.asarray(found)[:, None] > coded.edges
    np.testing.assert_array_equal(above[0, codes.COARSE :], False)
    np.testing.assert_array_equal(above[1], True)
