"""p-values against independent computations, and calibrated on data without effects."""

import numpy as np
import pytest
import scipy.stats

from benchmarks import chance
from jdissect.chance_level import p_values


def test_exact_p_values_count_permutations():
    observed, null = np.array([0.3, 0.1, 0.0]), np.array([[0.3, 0.2, 0], [0.2, 0.2, 0]])
    found = p_values.p_values(observed, null, np.ones(3))
    assert found.exact.tolist() == [2 / 3, 1, 1]
    # Too few permutations for a mean and a deviation.
    assert found.pooled.tolist() == [2 / 3, 1, 1]


def test_pooled_p_values_are_shares_of_standardized_nulls():
    """Against loops over units and permutations, outside of the tail."""
    rng = np.random.default_rng(0)
    images = rng.uniform(1, 100, 90)
    null = rng.gumbel(0.03, 0.002, (40, 90)) * np.linspace(1, 3, 90)
    observed = null.mean(axis=0) + rng.uniform(-1, 1, 90) * null.std(axis=0)
    found = p_values.p_values(observed, null, images).pooled
    order = list(np.argsort(images))
    z = np.empty_like(null)
    for unit in range(90):
        for number in range(40):
            others = np.delete(null[:, unit], number)
            z[number, unit] = (null[number, unit] - others.mean()) / others.std(ddof=1)
    for place, unit in enumerate(order):
        first = min(max(place - 32, 0), 26)
        pool = z[:, order[first : first + 64]]
        mean, deviation = null[:, unit].mean(), null[:, unit].std(ddof=1)
        reached = (pool >= (observed[unit] - mean) / deviation).sum()
        assert found[unit] == pytest.approx((1 + reached) / (1 + 40 * 64)), unit


@pytest.mark.parametrize("shape", [0.0, 0.2])
def test_the_tail_is_that_of_a_pareto_distribution(shape):
    distribution = scipy.stats.genpareto(shape, scale=2.0)
    values = np.sort(distribution.rvs(20_000, random_state=1))
    found, scale = p_values.fit_pareto(values)
    assert found == pytest.approx(shape, abs=0.03) and scale == pytest.approx(
        2, rel=0.05
    )
    for share in (1e-2, 1e-3, 1e-4):
        got = p_values.tail_share(values, distribution.isf(share))
        assert got == pytest.approx(share, rel=0.5), share
    assert p_values.tail_share(values, 1e9) >= p_values.LOWEST


def test_a_null_with_an_end_has_no_p_value_of_zero():
    values = np.random.default_rng(0).uniform(size=5000)
    assert p_values.fit_pareto(np.sort(values))[0] == 0
    assert 1e-4 > p_values.tail_share(values, 1.2) > 0


def test_a_unit_that_never_fires_is_not_above_chance():
    null = np.random.default_rng(0).uniform(size=(50, 4))
    null[:, 2] = 0
    found = p_values.p_values(np.array([0.5, 2, 0, 0.1]), null, np.arange(4.0))
    assert found.pooled[2] == found.q[2] == 1 and found.pooled[1] < 0.01


def test_q_values_are_those_of_scipy():
    p = np.random.default_rng(3).uniform(size=200) ** 2
    p[10:20] = p[0]  # ties
    np.testing.assert_allclose(
        p_values.benjamini_hochberg(p), scipy.stats.false_discovery_control(p)
    )


def calibration(layers_: int):
    """p-values of layers whose units detect nothing."""
    found = [chance.judge(seed) for seed in range(layers_)]
    pooled = np.concatenate([each.values.pooled for each in found])
    return pooled, np.array([each.values.q.min() for each in found])


def within(share, alpha, count, errors=4):
    return abs(share - alpha) < errors * np.sqrt(alpha * (1 - alpha) / count)


def test_units_without_concepts_are_found_as_often_as_nominal():
    pooled, _ = calibration(2)
    for alpha in (0.5, 0.2, 0.05):
        assert within((pooled <= alpha).mean(), alpha, len(pooled)), alpha


@pytest.mark.slow
def test_calibration_in_the_tail():
    pooled, least_q = calibration(120)
    for alpha in (0.1, 0.05, 0.01, 0.001):
        assert within((pooled <= alpha).mean(), alpha, len(pooled)), alpha
    # Without any effect, a discovery at all is a false one.
    assert (least_q <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(least_q))
