"""AUCs and their intervals, against loops over pairs and populations."""

import numpy as np
import pytest
import scipy.stats

from jdissect.verification import separation


def by_hand(a, b):
    return np.mean([[(x > y) + 0.5 * (x == y) for y in b] for x in a])


def test_auc_against_a_loop_and_scipy():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, (12, 5)).astype(np.float32)  # with ties
    b = rng.integers(0, 6, (9, 5)).astype(np.float32)
    found = separation.auc(a, b, np.arange(12), np.arange(12, 21), 30)
    for unit in range(5):
        assert found.value[unit] == pytest.approx(by_hand(a[:, unit], b[:, unit]))
        u = scipy.stats.mannwhitneyu(a[:, unit], b[:, unit]).statistic
        assert found.value[unit] == pytest.approx(u / (12 * 9))
    np.testing.assert_allclose(found.contribution.sum(axis=0), 0, atol=1e-12)
    assert (found.contribution[21:] == 0).all()


def test_contributions_are_what_leaving_an_image_out_changes():
    """The jackknife gives the same error, up to terms of order 1 / n."""
    rng = np.random.default_rng(1)
    n = 200
    both = rng.normal(size=(n, 1))
    with_it, without = both + rng.normal(size=(n, 1)) + 0.5, both
    image = np.arange(n)
    found = separation.of_pairs(with_it, without, image, n)
    left = []
    for out in range(n):
        keep = image != out
        left.append(
            separation.of_pairs(with_it[keep], without[keep], image[keep], n).value
        )
    jackknife = np.var(np.array(left)) * (n - 1)
    assert separation.error(found.contribution)[0] == pytest.approx(jackknife, rel=0.02)


def covered(pairs, shift, correlation, populations=400):
    """Share of intervals that contain the true AUC of correlated normal pairs."""
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(pairs, populations)) * np.sqrt(correlation)
    own = np.sqrt(1 - correlation)
    a = shared + own * rng.normal(size=(pairs, populations)) + shift
    b = shared + own * rng.normal(size=(pairs, populations))
    found = separation.interval(separation.of_pairs(a, b, np.arange(pairs), pairs))
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    return np.mean((found.low <= truth) & (truth <= found.high))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_contain_the_truth(shift, correlation):
    assert 0.91 <= covered(30, shift, correlation) <= 0.99


def test_a_margin_is_of_the_same_images():
    """What an image does to both AUCs cancels in their difference."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 40, 3))
    pairs = separation.of_pairs(a, b, np.arange(40), 40)
    nothing = separation.margin(pairs, pairs)
    np.testing.assert_allclose(nothing.value, 0)
    np.testing.assert_allclose(nothing.high, 0.5 / 40)  # never narrower
    other = separation.of_pairs(*rng.normal(size=(2, 40, 3)), np.arange(40), 40)
    found = separation.margin(pairs, other)
    np.testing.assert_allclose(found.value, pairs.value - other.value)
    assert (found.high - found.low > 0.1).all()


def test_intervals_stay_in_bounds_and_are_never_points():
    found = separation.interval(
        separation.of_pairs(np.ones((10, 1)), np.zeros((10, 1)), np.arange(10), 10)
    )
    assert found.value == 1 and found.high == 1 and found.low == 0.95


def test_the_shift_in_deviations():
    rng = np.random.default_rng(4)
    b = rng.normal(size=(50, 2)) * [1.0, 3.0]
    a = b + [1.0, 3.0] + rng.normal(size=(50, 2)) * 0.1
    found = separation.shift(a, b)
    for unit in range(2):
        x, y = a[:, unit], b[:, unit]
        scale = np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
        test = scipy.stats.ttest_rel(x, y).confidence_interval(0.95)
        assert found.value[unit] == pytest.approx((x - y).mean() / scale)
        assert found.low[unit] == pytest.approx(test.low / scale)
        assert found.high[unit] == pytest.approx(test.high / scale)
    dead = separation.shift(np.ones((5, 1)), np.ones((5, 1)))
    assert [each[0] for each in dead] == [0, 0, 0]
