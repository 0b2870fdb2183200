"""Bounds of AUROC, AP and the best IoU contain the exact values and become narrow."""

import numpy as np
import pytest

from jdissect.ops import float_keys
from jdissect.scoring import ranking
from jdissect.scoring.measure import Measuring
from jdissect.scoring.ranking import Histograms, Pairs
from tests.scoring import case
from tests.scoring.test_moments import some

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is absent")


def exact(values, mask):
    """(AUROC, AP, best IoU) from every pixel."""
    if not mask.any():
        return 0.5, 0.0, 0.0
    auroc = 0.5 if mask.all() else metrics.roc_auc_score(mask, values)
    levels = np.append(np.unique(values), -np.inf)
    best = max(
        ((values > level) & mask).sum() / ((values > level) | mask).sum()
        for level in levels
    )
    return auroc, metrics.average_precision_score(mask, values), best


def check(bounds, values, mask):
    for name, value in zip(("auroc", "ap", "iou"), exact(values, mask), strict=True):
        low, high = getattr(bounds, name)
        assert low - 1e-12 <= value <= high + 1e-12, name
    if mask.any():
        fires = values > bounds.threshold
        reached = (fires & mask).sum() / (fires | mask).sum()
        assert reached == pytest.approx(bounds.iou[0], abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["plain", "ties", "zeros", "few", "all", "none"])
def test_coarse_bins_bound_the_exact_values(seed, kind):
    rng = np.random.default_rng([seed, 7])
    values = rng.normal(size=400).astype(np.float32)
    if kind == "ties":
        values = np.round(2 * values)
    if kind == "zeros":
        values = np.maximum(values, 0)
    share = {"few": 0.01, "all": 1.1, "none": 0}.get(kind, 0.3)
    keys = float_keys.to_keys_host(values)
    mask = rng.random(400) < share * np.where(values > 1, 1, 0.5) * (1 + (share > 1))
    for edges in (
        np.quantile(values, [0.1, 0.5, 0.6, 0.9, 0.99]),
        np.array([0.5]),
        np.unique(values),
        float_keys.from_keys_host(np.unique([keys, keys + 1])),
    ):
        edges = np.unique(edges.astype(np.float32))
        counts = [
            (some[:, None] >= edges).sum(axis=0) for some in (values, values[mask])
        ]
        bounds = ranking.bound(edges, *counts, len(values), int(mask.sum()))
        check(bounds, values, mask)
    # In the last round every value has a bin of its own.
    assert bounds.width == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def found():
    """(case, its scores)."""
    small = case.make(2)
    layer = Measuring(small.result)
    while layer.unfinished:
        layer.add(small.batch)
        layer.finish_reading()
    return small, layer.measured("hash"), layer.readings


def test_a_layer_is_bounded_within_the_aim(found):
    small, scores, readings = found
    assert scores.width <= ranking.AIM and 2 < readings < 6
    assert len(scores.unit) == 8 * 4  # 'nowhere' has no pixel
    for pair, (unit, concept) in enumerate(
        zip(scores.unit, scores.column, strict=True)
    ):
        values = small.flat(small.pixels, concept)[:, unit].astype(np.float32)
        mask = small.flat(small.masks, concept)[:, concept]
        check(
            ranking.Bounds(
                tuple(scores.auroc[pair]),
                tuple(scores.average_precision[pair]),
                tuple(scores.best_iou[pair]),
                float(scores.best_threshold[pair]),
                None,
            ),
            values,
            mask,
        )


def test_iou_at_the_best_threshold_is_at_least_that_at_t_k(found):
    small, scores, _ = found
    iou = small.result.scores(["iou"], pairs="all")["iou"]
    assert (scores.best_iou[:, 1] >= iou[scores.unit, scores.column]).all()


def test_any_order_and_grouping_counts_the_same():
    small = case.make(2)
    pairs = Pairs(np.array([0, 0, 1, 4]), np.array([0, 4, 2, 1]))
    edges = [np.sort(np.float32([0.5, unit, 2.25])) for unit in range(8)]

    def counted(*parts):
        every = []
        for part in parts:
            one = Histograms.empty(edges, pairs, case.CATEGORY, 4)
            one.add(some(small.batch, part))
            every.append(one)
        for other in every[1:]:
            every[0].merge(other)
        return every[0]

    images = np.random.default_rng(1).permutation(len(small.batch.features))
    whole, merged = counted(np.sort(images)), counted(*np.split(images, [5, 11]))
    for name in ("every", "concept"):
        for key, counts in getattr(whole, name).items():
            np.testing.assert_array_equal(counts, getattr(merged, name)[key])
    np.testing.assert_array_equal(whole.pixels, merged.pixels)
    np.testing.assert_array_equal(whole.area, merged.area)
    assert whole.concept[0].any()


def test_each_unit_has_its_concept_and_the_next_ones(monkeypatch):
    quotient = np.array([[0.1, 0.3, 0.2, 0.3], [0, 0, 0, 0], [0, 0, 0.5, 0.4]])
    present, best = [True, True, False, True], np.array([1, -1, 2])
    pairs = ranking.choose(quotient, present, best)
    of = {u: pairs.column[pairs.unit == u].tolist() for u in range(3)}
    assert of == {0: [1, 3, 0], 1: [0, 1, 3], 2: [2, 3, 0, 1]}
    monkeypatch.setattr(ranking, "ENTRIES", 2 * 3 * ranking.BINS)
    pairs = ranking.choose(quotient, present, best)
    assert pairs.column.tolist() == [1, 3, 0, 1, 2, 3]
