"""Comparisons in 8 bits say what comparisons of keys say."""

import jax
import numpy as np
import pytest

from jdissect.ops import edge_codes, float_keys
from jdissect.ops.edges import EDGES

UNITS = 40
RANGES = [
    (0, 6),
    (-3e38, 3e38),
    (-1e-38, 1e-38),
    (0.99, 1),
    (-2, -1),
    (1e4 - 3, 1e4 + 3),
    (3e38, 3.3e38),
    (-1e30, 1e-3),
]


def _edges(rng, low, high):
    """Ascending keys between two floats, for every unit."""
    drawn = rng.uniform(low, high, (EDGES, UNITS)).astype(np.float32)
    return np.sort(float_keys.to_keys_host(drawn), axis=0)


def _found(pixels, coded):
    """[pixel, edge, unit], on a device: whether a code is above an edge's."""
    values = float_keys.from_keys_host(pixels)
    found = np.asarray(jax.jit(edge_codes.encode)(values, coded))
    assert found.dtype == np.int8
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, edge_codes.encode(values, coded))
    return found[:, None] > coded.edges


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_codes_compare_as_keys_do(low, high):
    rng = np.random.default_rng(0)
    wanted = _edges(rng, low, high)
    coded, edges = edge_codes.of_edges(wanted)
    assert coded.edges.dtype == np.int8
    assert (np.diff(edges, axis=0) >= 0).all() and (edges >= wanted).all()
    assert (np.diff(coded.edges.astype(int), axis=0) >= 0).all()
    # Every edge, its neighbours, zero, the ends, and others.
    near = [edges + d for d in (-1, 0, 1)]
    ends = np.array([0, -1, 1, float_keys.KEY_OF_LOWEST, float_keys.KEY_OF_LARGEST])
    near.append(np.broadcast_to(ends[:, None], (5, UNITS)))
    near.append(rng.integers(edges[0], edges[-1] + 1, (500, UNITS)))
    near = np.clip(
        np.concatenate(near), float_keys.KEY_OF_LOWEST, float_keys.KEY_OF_LARGEST
    )
    np.testing.assert_array_equal(_found(near, coded), near[:, None] > edges)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_codes_never_fall(low, high):
    rng = np.random.default_rng(1)
    coded, edges = edge_codes.of_edges(_edges(rng, low, high))
    pixels = np.sort(rng.integers(edges[0] - 99, edges[-1] + 99, (4000, UNITS)), axis=0)
    with np.errstate(over="ignore"):
        found = edge_codes.encode(float_keys.from_keys_host(pixels), coded).astype(int)
    assert (np.diff(found, axis=0) >= 0).all()


def test_edges_hardly_move():
    """The lower ones by a tenth of their range or so, the others by a hundredth."""
    before = _edges(np.random.default_rng(1), 0, 6)
    _, after = edge_codes.of_edges(before)
    np.testing.assert_array_equal(after[[0, -1]], before[[0, -1]])
    values = float_keys.from_keys_host(before)
    moved = float_keys.from_keys_host(after) - values
    first = edge_codes.COARSE
    assert (moved[:first] <= 0.11 * (values[first] - values[0])).all()
    assert (moved[first:] <= 0.01 * (values[-1] - values[first])).all()


def test_what_is_piled_up_stays_apart():
    """Where a ReLU6 leaves most pixels: at 0, and at 6."""
    edges = _edges(np.random.default_rng(2), 0, 6)
    edges[:3] = 0
    edges[-1] = float_keys.to_keys_host(np.float32([6]))[0] - 1
    _, kept = edge_codes.of_edges(edges)
    np.testing.assert_array_equal(kept[:3], 0)
    np.testing.assert_array_equal(kept[-1], edges[-1])


def test_edges_that_are_all_one():
    coded, kept = edge_codes.of_edges(np.full((EDGES, 2), 12345))
    np.testing.assert_array_equal(kept, 12345)
    above = _found(np.array([[12345] * 2, [12346] * 2]), coded)
    np.testing.assert_array_equal(above[0], False)
    np.testing.assert_array_equal(above[1], True)
