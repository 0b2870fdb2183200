"""Sets of concepts: against a paired t-test, the truth, and where there are none."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from benchmarks import chance
from jdissect.analysis import concept_sets, resampling
from tests import small_runs


def influence_of(common, union):
    """(IoU [concept], linearized influence [group, concept])."""
    total = union.sum(axis=0)
    iou = common.sum(axis=0) / total
    return iou, (common - iou * union) / total


def test_of_two_concepts_the_set_is_a_paired_test():
    """The jackknife leaves each group out, and needs no linearization."""
    rng = np.random.default_rng(0)
    decisions, beside = [], 0
    for _ in range(200):
        shared = rng.gamma(4, 25, 32)
        common = np.stack([shared * rng.uniform(0.8, 1.2, 32) for _ in range(2)], 1)
        common[:, 1] *= rng.uniform(0.9, 1.0)
        union = common + rng.gamma(9, 60, 32)[:, None]
        kept = concept_sets.not_worse(*influence_of(common, union))
        left = [np.delete(np.arange(32), group) for group in range(32)]
        iou = [common[rows].sum(0) / union[rows].sum(0) for rows in left]
        difference = np.array([one[1] - one[0] for one in iou])
        error = np.sqrt(31 / 32 * ((difference - difference.mean()) ** 2).sum())
        whole = common.sum(0) / union.sum(0)
        t = abs(whole[1] - whole[0]) / error
        limit = scipy.stats.t.ppf(0.95, 31)
        worse = int(whole.argmin())
        assert kept[1 - worse]
        decisions.append(kept[worse])
        if abs(t - limit) > 0.05 * limit:
            assert kept[worse] == (t < limit)
            beside += 1
    assert beside > 150 and 20 < sum(decisions) < 180


def test_sets_of_a_layer():
    layer = small_runs.result(seed=3, units=40)
    sets = concept_sets.concept_sets(layer)
    assert len(sets.start) == 41 and sets.sizes.sum() == len(sets.column)
    for unit in range(40):
        here = sets.of(unit)
        if layer.best_iou[unit] < concept_sets.LOWEST:
            assert len(here) == 0
            continue
        assert here[0] == layer.best_concept[unit]
        iou = layer.intersection[unit, here] / layer.union[unit, here]
        assert (np.diff(iou) <= 0).all()
    assert 1 == sets.sizes[sets.sizes > 0].min() < sets.sizes.max()
    again = concept_sets.concept_sets(layer)
    np.testing.assert_array_equal(again.column, sets.column)


def test_concepts_with_equal_counts_stay_together():
    rng = np.random.default_rng(1)
    common = np.repeat(rng.gamma(4, 25, (32, 1)), 3, axis=1)
    common[:, 2] *= 0.5
    found = resampling.Candidates(
        np.zeros(3, int), np.array([4, 7, 9]), common, common + 500, 2, 10
    )
    sets = concept_sets.of_candidates(found)
    assert sets.of(0).tolist() == [4, 7] and sets.of(1).tolist() == []
    # Groups without images say nothing.
    empty = dataclasses.replace(
        found,
        intersection=np.concatenate([common, 0 * common]),
        union=np.concatenate([common + 500, 0 * common]),
    )
    filled = np.arange(64) < 32
    assert concept_sets.of_candidates(empty, filled).of(0).tolist() == [4, 7]


def test_none_without_blocks():
    layer = small_runs.result(units=6)
    assert concept_sets.concept_sets(layer.replace(blocks=None)) is None


@pytest.mark.parametrize(
    "kind",
    [
        "three near each other",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in chance.SETS),
    ],
)
def test_the_truth_is_in_the_set(kind, request):
    slow = request.node.get_closest_marker("slow")
    trials = [chance.set_trial(seed, kind) for seed in range(10 if slow else 3)]
    inside, sizes = (np.concatenate(each) for each in zip(*trials, strict=True))
    concepts, _ = chance.SETS[kind]
    # Units of a population are not independent; 120 have an error of about 0.02.
    assert inside.mean() > 0.95 - (0.02 if slow else 0.05)
    assert 1 < sizes.mean() < concepts
