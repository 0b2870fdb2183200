"""Zeroed units, against brute force; intervals, against what is known."""

import numpy as np
import pytest
from scipy import stats

from jdissect.ablation import interventions
from jdissect.analysis import paired_bootstrap

IMAGES, UNITS, CLASSES = 90, 70, 6


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def readout(seed=0, images=IMAGES, units=UNITS, classes=CLASSES, **changes):
    rng = np.random.default_rng(seed)
    pooled = rng.exponential(size=(images, units)).astype(np.float32)
    kernel = rng.normal(size=(units, classes)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    arrays = {
        "pooled": pooled,
        "kernel": kernel,
        "bias": bias,
        "logits": (pooled.astype(float) @ kernel + bias).astype(np.float32),
        "labels": rng.integers(0, classes - 1, images),  # the last class has none
    }
    return interventions.Readout(**{**arrays, **changes})


def brute_force(one, zeroed):
    """(right, log-probability) in float64."""
    keep = np.ones(one.pooled.shape[1])
    keep[zeroed] = 0
    logits = (one.pooled * keep) @ one.kernel.astype(float) + one.bias
    rows = np.arange(len(logits))
    right = logits.argmax(axis=1) == one.labels
    return right, np.log(softmax(logits)[rows, one.labels])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(interventions, "_CHUNK", 1500)


def test_sets_of_units(small_chunks):
    one = readout()
    sets = [[], [3], [0, 5, 69], list(range(UNITS))]
    masks = np.stack([interventions.zeroing(UNITS, zeroed) for zeroed in sets])
    found = interventions.outcomes(one, masks)
    for row, zeroed in enumerate(sets):
        right, own = brute_force(one, zeroed)
        np.testing.assert_array_equal(found.right[row], right)
        np.testing.assert_allclose(
            found.log_probability[row], own, rtol=1e-5, atol=2e-5
        )
    assert found.right[0].any() and not found.right[0].all()


def test_each_unit_alone(small_chunks):
    one = readout(1)
    found = interventions.each_alone(one, np.arange(UNITS))
    assert found.right.shape == found.loss.shape == (UNITS, CLASSES)
    for unit in range(UNITS):
        right, own = brute_force(one, [unit])
        for label in range(CLASSES):
            images = one.labels == label
            assert found.right[unit, label] == right[images].sum()
            np.testing.assert_allclose(
                found.loss[unit, label], -own[images].sum(), rtol=1e-5, atol=1e-4
            )


def test_ties_go_to_the_lower_class():
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, 2, 2]], np.float32)
    right, _ = interventions.outcome(logits, np.array([0, 1, 2]))
    assert np.asarray(right).tolist() == [True, False, False]


def test_planted_unit_decides_its_class():
    """Unit 3 alone says class 1; without it class 1 is never right."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pooled = rng.uniform(0, 0.01, (60, 8)).astype(np.float32)
    pooled[:, 3] += labels == 1
    pooled[:, 5] += labels == 2
    kernel = np.zeros((8, 3), np.float32)
    kernel[3, 1] = kernel[5, 2] = 5
    bias = np.array([1, 0, 0], np.float32)
    one = readout(
        pooled=pooled,
        kernel=kernel,
        bias=bias,
        labels=labels,
        logits=pooled @ kernel + bias,
    )
    alone = interventions.each_alone(one, np.arange(8))
    before = interventions.outcomes(one, np.ones((1, 8), np.float32))
    assert before.right.all()
    whole = interventions.effects(np.array([-1]), before, labels, 3)
    assert whole.right.tolist() == [[20, 20, 20]]
    order = interventions.ranking(alone, whole.right[0], whole.loss[0])
    assert order[1, 0] == 3 and order[2, 0] == 5
    assert alone.right[3].tolist() == [20, 0, 20]
    assert alone.right[[0, 1, 2, 4, 6, 7]].min() == 20


def test_ranking_by_images_then_loss_then_number():
    alone = interventions.Effects(
        units=np.array([7, 8, 9, 10]),
        right=np.array([[5], [4], [5], [5]]),
        loss=np.array([[1.0], [1.0], [2.0], [1.0]]),
    )
    order = interventions.ranking(alone, np.array([5]), np.array([1.0]))
    assert alone.units[order[0]].tolist() == [8, 9, 7, 10]


def test_by_class_keeps_classes_without_images():
    values = np.array([[1, 2, 3], [10, 20, 30]])
    found = interventions.by_class(values, np.array([2, 0, 2]), 4)
    assert found.tolist() == [[2, 0, 4, 0], [20, 0, 40, 0]]


def test_random_units_of_a_group():
    group = np.arange(10) < 4
    rng = np.random.default_rng(0)
    masks = interventions.random_zeroing(group, 2, 50, rng)
    assert masks.shape == (50, 10) and (masks.sum(axis=1) == 8).all()
    assert (masks[:, 4:] == 1).all() and len(np.unique(masks, axis=0)) == 6
    whole = interventions.random_zeroing(group, 4, 50, rng)
    np.testing.assert_array_equal(whole, [1 - group])


def coverage(interval, truth, repetitions=400):
    rng = np.random.default_rng(0)
    found = [interval(rng) for _ in range(repetitions)]
    return np.mean([one.low <= truth <= one.high for one in found])


def test_interval_of_a_change_contains_the_truth():
    """Of 150 images 20 % are lost and 8 % gained, in truth: -12 points."""

    def interval(rng):
        kind = rng.choice(3, 150, p=[0.2, 0.08, 0.72])
        return paired_bootstrap.change(kind == 0, kind == 1, rng, 500)

    assert 0.92 < coverage(interval, -0.12) < 0.98


@pytest.mark.parametrize("images", [5, 20])
def test_interval_of_few_images_contains_the_truth(images):
    def interval(rng):
        lost, gained, _ = rng.multinomial(images, [0.1, 0.02, 0.88])
        return paired_bootstrap.change_of_few(lost, gained, images)

    assert coverage(interval, -0.08, 2000) > 0.93
    still = paired_bootstrap.change_of_few(0, 0, images)
    assert still.low < 0 == still.value < still.high


def test_interval_of_a_difference_contains_the_truth():
    """Images differ in how hard they are, draws in how much they take."""

    def interval(rng):
        hard = rng.random(100)

        def right(mean):
            taken = rng.normal(mean, 0.1, (15, 1))
            return hard + taken + rng.normal(0, 0.1, (15, 100)) < 0.5

        return paired_bootstrap.difference(right(0.0), right(0.1), rng, 300)

    assert 0.9 < coverage(interval, 0.1, 200) <= 1


def test_difference_of_means():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 40), rng.normal(0, 2, 60)
    found = paired_bootstrap.difference_of_means(first, second, rng)
    assert found.value == pytest.approx(first.mean() - second.mean())
    error = np.sqrt(1 / 40 + 4 / 60)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_difference_of_means_of_one_unit():
    """A layer may have a single detector; SciPy's bootstrap refuses it."""
    one, others = np.array([2.0]), np.array([0.0, 1.0])
    found = paired_bootstrap.difference_of_means(one, others, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (1.5, 1.0, 2.0)
    with pytest.raises(ValueError, match="two or more"):
        stats.bootstrap((one, others), lambda a, b: a.mean() - b.mean())


@pytest.mark.filterwarnings("error")
def test_rank_correlation():
    first, second = np.array([1.0, 2.0, 2.0, 5.0]), np.array([3.0, 4.0, 4.0, 9.0])
    assert paired_bootstrap.rank_correlation(first, second) == pytest.approx(1)
    assert paired_bootstrap.rank_correlation(first, -second) == pytest.approx(-1)
    assert np.isnan(paired_bootstrap.rank_correlation(np.ones(4), second))
