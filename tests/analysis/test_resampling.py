"""Counts over other choices of the images, against loops over everything."""

import numpy as np
import pytest

from jdissect.analysis import resampling
from tests import small_runs


@pytest.fixture(scope="module")
def layer():
    return small_runs.result(seed=3, units=40)


@pytest.fixture(scope="module")
def by_block(layer):
    """(intersection, union) int64[group, unit, concept]."""
    units, concepts = layer.intersection.shape
    unit, column = (index.ravel() for index in np.indices((units, concepts)))
    common = layer.blocks.intersection_of(unit, column)
    union = layer.blocks.union_of(unit, column, common)
    return [np.moveaxis(a.reshape(units, concepts, -1), -1, 0) for a in (common, union)]


def iou(by_block, weights):
    common, union = (np.tensordot(weights, a, 1) for a in by_block)
    return common / np.maximum(union, 1)


def brute_levels(by_block, chosen_by, judged_by):
    found = np.zeros(by_block[0].shape[2])
    for chosen, judged in zip(
        iou(by_block, chosen_by), iou(by_block, judged_by), strict=True
    ):
        concept = np.argmax(chosen)
        found[concept] = max(found[concept], judged[concept])
    return found


def some_weights(rng, count=25):
    bootstrap = rng.multinomial(32, np.full(32, 1 / 32), count).astype(float)
    halves = (rng.permuted(np.tile(np.arange(32), (count, 1)), axis=1) < 16) * 1.0
    return bootstrap, halves


def test_counts_by_block_are_those_of_the_layer(layer, by_block):
    np.testing.assert_array_equal(by_block[0].sum(axis=0), layer.intersection)
    np.testing.assert_array_equal(by_block[1].sum(axis=0), layer.union)


def test_levels_against_all_pairs(layer, by_block):
    found = resampling.candidates(layer, layer.blocks)
    assert len(found.unit) < layer.intersection.size / 2
    bootstrap, halves = some_weights(np.random.default_rng(0))
    plain = resampling.levels(found, bootstrap)
    crossed = resampling.levels(found, bootstrap * halves, bootstrap * (1 - halves))
    for number, weights in enumerate(bootstrap):
        want = brute_levels(by_block, weights, weights)
        # What is left out is below what is asked about.
        np.testing.assert_allclose(
            np.where(want > 0.01, plain[number], 0), np.where(want > 0.01, want, 0)
        )
        half = halves[number]
        want = brute_levels(by_block, weights * half, weights * (1 - half))
        np.testing.assert_allclose(
            np.maximum(crossed[number], 0.01), np.maximum(want, 0.01)
        )


def test_in_chunks_the_same(layer, monkeypatch):
    found = resampling.candidates(layer, layer.blocks)
    bootstrap, halves = some_weights(np.random.default_rng(1))
    whole = resampling.levels(found, bootstrap, halves)
    stable = resampling.stability(found, bootstrap)
    monkeypatch.setattr(resampling, "_CHUNK", 2 * len(found.unit))
    np.testing.assert_array_equal(resampling.levels(found, bootstrap, halves), whole)
    np.testing.assert_array_equal(resampling.stability(found, bootstrap), stable)


def test_stability_against_all_pairs(layer, by_block):
    found = resampling.candidates(layer, layer.blocks)
    bootstrap, _ = some_weights(np.random.default_rng(2))
    stable = resampling.stability(found, bootstrap)
    want = [iou(by_block, w).argmax(axis=1) == layer.best_concept for w in bootstrap]
    strong = layer.best_iou > 0.02
    np.testing.assert_allclose(stable[strong], np.mean(want, axis=0)[strong])
    assert strong.sum() > 10 and (stable[strong] < 1).any()


def test_a_tie_goes_to_the_first_concept():
    counts = np.full((2, 3), 5.0)
    found = resampling.Candidates(
        np.array([0, 0, 1]), np.array([4, 7, 7]), counts, counts * 10, 2, 9
    )
    level = resampling.levels(found, np.ones((1, 2)))[0]
    assert level[4] == level[7] == 0.1 and level.sum() == 0.2


def test_no_pairs():
    empty = np.zeros(0, int)
    nothing = np.zeros((4, 0))
    found = resampling.Candidates(empty, empty, nothing, nothing, 3, 6)
    assert not resampling.levels(found, np.ones((5, 4))).any()
    assert np.isnan(resampling.stability(found, np.ones((5, 4)))).all()
