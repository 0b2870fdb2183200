"""Turns best IoUs under permutations into p-values, and these into q-values.

A unit's own P permutations give no p-value below 1 / (P + 1), too coarse for a layer of
2,048 units. Units that fire alike have nulls of the same shape, which differ in place
and width only. So every unit's null is standardized,

    z[p] = (x[p] - mean of the others) / (standard deviation of the others),

and pooled with those of the units nearest to it in the *number of images that it fires
in*, (sum f)^2 / sum f^2 with f its pixels in each image: a unit that fires in few
images has a heavier tail. Leaving z[p] out of its own mean and deviation treats it as
the observed value, which has no part in them, is treated. The p-value is the share of
the pool that reaches the observed z, (1 + b) / (1 + n).

In the outermost `TAIL` values of the pool a generalized Pareto distribution takes the
place of the share (Knijnenburg et al. 2009, doi:10.1093/bioinformatics/btp211), fitted
by probability-weighted moments (Hosking and Wallis 1987, doi:10.2307/1269343). Its
shape is kept in [0, 1/2]: a null with an end would give a p-value of 0. No p-value is
below `LOWEST`: so far out, it is the fit that speaks, not the permutations.

`benchmarks/chance.py` measures how often p-values of units without a concept are below
a level.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

POOLED = 64  # units whose nulls are pooled
TAIL = 250  # outermost values of a pool that the tail is fitted to
FEWEST = 8  # permutations, for a mean and a deviation
LOWEST = 1e-6
_HEAVIEST = 0.5  # shape of the tail


class PValues(NamedTuple):
    """p-values of the best IoU of every unit.

    Attributes:
      exact: float64[unit], of the unit's own permutations; at least 1 / (P + 1).
      pooled: float64[unit], from the pooled null; at least `LOWEST`.
      q: float64[unit], `benjamini_hochberg` of `pooled`.
    """

    exact: Float[np.ndarray, " unit"]
    pooled: Float[np.ndarray, " unit"]
    q: Float[np.ndarray, " unit"]


def p_values(
    observed: Float[np.ndarray, " unit"],
    null: Float[np.ndarray, "permutation unit"],
    images_of: Float[np.ndarray, " unit"],
) -> PValues:
    """Returns the p-values of best IoUs.

    Args:
      observed: best IoU of every unit.
      null: best IoUs under permutations.
      images_of: number of images that each unit fires in, see `effective_images`.
    """
    exact = (1 + (null >= observed).sum(axis=0)) / (1 + len(null))
    pooled = _pooled(observed, null, images_of)
    return PValues(exact, pooled, benjamini_hochberg(pooled))


def effective_images(
    total: Float[np.ndarray, " unit"], squares: Float[np.ndarray, " unit"]
) -> Float[np.ndarray, " unit"]:
    """Returns (sum f)^2 / sum f^2, from 1 to the number of images; 0 without pixels."""
    return total.astype(np.float64) ** 2 / np.maximum(squares, 1)


def benjamini_hochberg(p: Float[np.ndarray, " unit"]) -> Float[np.ndarray, " unit"]:
    """Returns q-values: the smallest false discovery rate at which a unit is found.

    Source: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x, in the
    adjusted form: q of the i-th smallest of m is the least p[j] m / j over j >= i.
    """
    order = np.argsort(p, kind="stable")
    adjusted = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1.0)
    return q


def _pooled(observed, null, images_of) -> Float[np.ndarray, " unit"]:
    count = len(null)
    mean, square = null.mean(axis=0), ((null - null.mean(axis=0)) ** 2).sum(axis=0)
    # A unit whose null is (nearly) one value has no shape; its own count has to do.
    shaped = square > 1e-12 * count * np.maximum(mean, 1e-12) ** 2
    p = (1 + (null >= observed).sum(axis=0)) / (1 + count)
    units = np.flatnonzero(shaped)
    if not len(units) or count < FEWEST:
        return p
    order = units[np.argsort(images_of[units], kind="stable")]
    z = _left_out(null[:, order], mean[order], square[order])
    deviation = np.sqrt(square[order] / (count - 1))
    reached = (observed[order] - mean[order]) / deviation
    width = min(POOLED, len(order))
    for place, unit in enumerate(order):
        first = min(max(place - width // 2, 0), len(order) - width)
        p[unit] = tail_share(z[:, first : first + width].reshape(-1), reached[place])
    return p


def _left_out(null, mean, square) -> Float[np.ndarray, "permutation unit"]:
    """Returns z of every value by the mean and deviation of the others."""
    count = len(null)
    away = null - mean
    others = (square - away**2 * count / (count - 1)) / (count - 2)
    # The others may all be equal, as where a unit fires in one image.
    least = 1e-6 * square / count
    return away * count / (count - 1) / np.sqrt(np.maximum(others, least))


def tail_share(pool: Float[np.ndarray, " value"], value: float) -> float:
    """Returns the probability that a value like those of a pool reaches `value`."""
    reach = int((pool >= value).sum())
    share = (1 + reach) / (1 + len(pool))
    tail = min(TAIL, len(pool) // 10)
    if tail < 20 or reach >= tail:
        return share
    highest = np.sort(pool)[::-1]
    start = (highest[tail - 1] + highest[tail]) / 2
    shape, scale = fit_pareto(highest[:tail][::-1] - start)
    if scale <= 0:
        return share
    beyond = max(value - start, 0.0) / scale
    survival = np.exp(-beyond) if shape == 0 else (1 + shape * beyond) ** (-1 / shape)
    return float(max(tail / len(pool) * survival, LOWEST))


def fit_pareto(excess: Float[np.ndarray, " value"]) -> tuple[float, float]:
    """Fits a generalized Pareto distribution; returns (shape in [0, 1/2], scale).

    Args:
      excess: nonnegative values, ascending.
    """
    count = len(excess)
    mean = excess.mean()
    # Plotting positions of Hosking and Wallis; the moment of x (1 - F).
    weighted = (excess * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean()
    below = mean - 2 * weighted
    if below <= 0:
        return 0.0, 0.0
    shape = min(max(2 - mean / below, 0.0), _HEAVIEST)
    # The scale that keeps the mean, for the shape that was kept.
    return float(shape), float(mean * (1 - shape))
