"""Computes differences on the same images, with 95 % intervals.

The images before and after an intervention are the same, so what matters is which of
them change (McNemar, 1947), not the two shares by themselves.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 2000  # per bootstrap


@dataclasses.dataclass(frozen=True)
class Change:
    """A difference of two shares on the same images, with its 95 % interval."""

    value: float
    low: float
    high: float


def change(
    before: Bool[np.ndarray, " image"],
    after: Bool[np.ndarray, " image"],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Change:
    """Returns the change in the share of right images, by a paired bootstrap of images.

    An image is lost, gained or unchanged (McNemar, 1947), so resampling images means
    drawing those three counts.
    """
    images = len(before)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    shares = np.array([lost, gained, images - lost - gained]) / images
    drawn = rng.multinomial(images, shares, size=resamples)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / images, (0.025, 0.975))
    return Change((gained - lost) / images, float(low), float(high))


def change_of_few(lost: int, gained: int, images: int) -> Change:
    """Like `change`, for the images of one class, which may be few.

    A bootstrap of few unchanged images would say that nothing can ever change, so this
    is the normal interval with half an observation added to each of the four cells of
    the table (Agresti & Min, 2005).
    """
    total = images + 2
    centre = (gained - lost) / total
    error = math.sqrt(max(lost + gained + 1 - total * centre**2, 0.0)) / total
    return Change(
        (gained - lost) / images,
        max(-1.0, centre - 1.96 * error),
        min(1.0, centre + 1.96 * error),
    )


def difference(
    first: Bool[np.ndarray, "draw image"],
    second: Bool[np.ndarray, "draw2 image"],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Change:
    """Returns the share of right images under the first minus the second interventions.

    Both are means over draws. A resample draws images, the same for both, and draws of
    each, so that the interval covers other images of the kind and other random choices
    of units.
    """
    both = np.concatenate([first, second]).astype(np.float32)
    images = both.shape[1]
    means = np.empty((resamples, len(both)), np.float32)
    for row in means:
        weights = np.bincount(rng.integers(0, images, images), minlength=images)
        row[:] = both @ weights.astype(np.float32) / images

    def of_draws(columns):
        again = rng.integers(0, columns.shape[1], columns.shape)
        return np.take_along_axis(columns, again, axis=1).mean(axis=1)

    drawn = of_draws(means[:, : len(first)]) - of_draws(means[:, len(first) :])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Change(float(first.mean() - second.mean()), float(low), float(high))


def difference_of_means(
    first: Float[np.ndarray, " unit"],
    second: Float[np.ndarray, " unit2"],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Change:
    """Returns the mean of some units minus that of others, by a bootstrap of units."""
    again = [
        rng.choice(values, (resamples, len(values))).mean(axis=1)
        for values in (first, second)
    ]
    low, high = np.quantile(again[0] - again[1], (0.025, 0.975))
    return Change(float(first.mean() - second.mean()), float(low), float(high))


def rank_correlation(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> float:
    """Spearman's, in [-1, 1]; equal values share their mean rank. NaN for constants."""
    import scipy.stats  # takes a second to import

    if not np.ptp(first) or not np.ptp(second):  # SciPy warns of these
        return float("nan")
    return float(scipy.stats.spearmanr(first, second).statistic)
