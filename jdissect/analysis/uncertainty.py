"""Estimates the uncertainty of counts of unique concepts.

The number of unique concepts counts how many maxima over noisy IoUs exceed a threshold.
With T_k fixed and the images in 32 blocks, this module estimates:

- *expected*: how the count would vary over other images of this number, by a bootstrap
  of the blocks (Efron 1979). Part of what it counts is noise above the threshold.
- *cross-fitted*: each unit's concept is chosen on half of the blocks and its IoU judged
  on the other half, both ways, averaged over splits, so that no unit profits from a
  lucky choice. Half of the images choose worse than all of them, so this estimate tends
  to be low where the other one tends to be high.
- *population*: an interval for the count at infinitely many images. It spans both, plus
  the variation of the plain count beyond them.
- differences of two networks are computed per resample: the same blocks and splits, so
  that shared noise cancels.

Intervals are Student's t around the estimate, with the resamples' spread: percentiles
of the resamples would be biased, since a resample adds its own noise to that of the
images. No interval is narrower than half a concept (for a population, one) to each
side: 32 blocks cannot show what happens once in a hundred times. `COVERAGE` gives the
share of intervals that contain the truth, as measured by `benchmarks/coverage.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from jdissect.analysis import resampling
from jdissect.base.concepts import reported_categories
from jdissect.results.group_counts import GroupedCounts
from jdissect.results.layer_result import Result

CONFIDENCE = 0.95
RESAMPLES = 500  # for the count
CROSSED_RESAMPLES = 200  # for the cross-fitted count, which is costlier
SPLITS = 4  # per resample, each both ways
FEWEST_GROUPS = 8  # minimum number of blocks with images for an interval
TOTAL = "total"
_SEED = 20240923
_NARROWEST, _NARROWEST_POPULATION = 0.5, 1.0

# Share of 200 synthetic populations of each kind whose truth was in the interval:
# `python -m benchmarks.coverage`, 23 November 2026.
COVERAGE = {
    "easy": {
        "count, expected": 0.975,
        "count, cross-fitted": 0.960,
        "count, population": 0.975,
        "difference, expected": 0.970,
        "difference, cross-fitted": 0.940,
        "difference, population": 0.985,
    },
    "near the threshold": {
        "count, expected": 0.905,
        "count, cross-fitted": 0.935,
        "count, population": 0.960,
        "difference, expected": 0.930,
        "difference, cross-fitted": 0.940,
        "difference, population": 0.915,
    },
}
REACHED = 0.9  # minimum coverage without a caveat


class Interval(NamedTuple):
    """A closed interval."""

    low: float
    high: float


def caveat() -> str:
    """Returns the caveat for figures with intervals; '' if coverage is sufficient."""
    short = [
        f"{name}: {share:.0%} in {kind} populations"
        for kind, shares in COVERAGE.items()
        for name, share in shares.items()
        if share < REACHED
    ]
    if not short:
        return ""
    return f"Intervals fall short of {REACHED:.0%} coverage for {', '.join(short)}."


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate of a number of unique concepts, or of a difference of two.

    Attributes:
      count: the plain count.
      expected: interval for the expected count at this number of images.
      cross_fitted: the cross-fitted count.
      interval: interval for the expected cross-fitted count.
      population: interval for the count at infinitely many images.
    """

    count: int
    expected: Interval
    cross_fitted: float
    interval: Interval
    population: Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """The IoU up to which each concept is detected, over resamples of the blocks.

    IoUs are float64, as `Result.unique_concepts` compares them: rounded to float32, an
    IoU just above a threshold would fall on it.

    Attributes:
      plain: float64[1 + resample, concept]; the first row is for all images.
      crossed: float64[1 + resample, split, concept]; likewise.
      stability: float32[unit], share of resamples in which a unit keeps its concept;
        NaN for a unit without one.
      categories: category of each concept.
      groups: number of blocks with images.
    """

    plain: Float[np.ndarray, "resample concept"]
    crossed: Float[np.ndarray, "crossed_resample split concept"]
    stability: Float[np.ndarray, " unit"]
    categories: tuple[str, ...]
    groups: int

    @functools.cached_property
    def _in_category(self) -> Mapping[str, np.ndarray]:
        names = np.array(self.categories, dtype=str)
        found = {name: names == name for name in reported_categories(self.categories)}
        return {**found, TOTAL: np.ones(len(names), bool)}

    def counts(
        self, threshold: float, category: str = TOTAL
    ) -> tuple[Int[np.ndarray, " resample"], Float[np.ndarray, " crossed_resample"]]:
        """Returns (counts, cross-fitted counts), float64[1 + resample] each."""
        here = self._in_category[category]
        crossed = (self.crossed[..., here] > threshold).sum(axis=-1).mean(axis=-1)
        return (self.plain[:, here] > threshold).sum(axis=-1), crossed


@dataclasses.dataclass(frozen=True)
class LayerEstimates:
    """Estimates for a layer.

    Attributes:
      counts: {IoU threshold: {category or 'total': Estimate}}.
      stability: see `Samples`.
    """

    counts: Mapping[float, Mapping[str, Estimate]]
    stability: Float[np.ndarray, " unit"]


def sample(
    result: Result,
    counts: GroupedCounts | None = None,
    lowest: float = resampling.LOWEST,
) -> Samples | None:
    """Resamples a layer.

    The draws depend only on which blocks have images, so those of networks on the same
    images are paired.

    Args:
      result: result of the layer.
      counts: counts by group; by default `result.blocks`.
      lowest: lowest IoU threshold that will be used.

    Returns:
      the resamples; None if `why_not` gives a reason.
    """
    counts = counts or result.blocks
    if counts is None or why_not(result, counts):
        return None
    found = resampling.candidates(result, counts, min(lowest, resampling.LOWEST))
    return resample(found, filled(counts), result.categories)


def why_not(result: Result, counts: GroupedCounts | None = None) -> str:
    """Returns why a layer has no intervals, to follow its name; '' if it has some.

    Args:
      result: result of the layer.
      counts: counts by group; by default `result.blocks`.
    """
    counts = counts or result.blocks
    if not result.concepts:
        return "it has no concepts"
    if counts is None:
        return "its counts by block of images were not kept"
    if (blocks := int(filled(counts).sum())) < FEWEST_GROUPS:
        return (
            f"too few images: {result.images}, with counts in {blocks} of "
            f"{counts.groups} blocks, but {FEWEST_GROUPS} are needed"
        )
    return ""


def filled(counts: GroupedCounts) -> Bool[np.ndarray, " group"]:
    """Returns whether each group has counts."""
    return (counts.concept.sum(axis=1) > 0) | (counts.unit[:, -1].sum(axis=1) > 0)


def resample(
    found: resampling.Candidates,
    filled: Bool[np.ndarray, " group"],
    categories: tuple[str, ...],
) -> Samples:
    """Resamples the blocks that hold images.

    Args:
      found: pairs of a unit and a concept.
      filled: whether each block holds images.
      categories: category of each concept.
    """
    groups = int(filled.sum())
    weights, halves = (_spread(drawn, filled) for drawn in draws(groups))
    return Samples(
        plain=resampling.levels(found, weights),
        crossed=crossed(found, weights[: 1 + CROSSED_RESAMPLES], halves),
        stability=resampling.stability(found, weights[1:]),
        categories=categories,
        groups=groups,
    )


def draws(
    groups: int,
) -> tuple[Float[np.ndarray, "weighting group"], Float[np.ndarray, "split group"]]:
    """Returns (weights [1 + resample, group], halves [split, group]) of a bootstrap.

    The first weights are all 1; a half has `groups // 2` ones.
    """
    rng = np.random.default_rng(_SEED)
    halves = np.zeros((SPLITS, groups))
    for half in halves:
        half[rng.permutation(groups)[: groups // 2]] = 1
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    return np.concatenate([np.ones((1, groups)), weights]), halves


def crossed(
    found: resampling.Candidates,
    weights: Float[np.ndarray, "weighting group"],
    halves: Float[np.ndarray, "split group"],
) -> Float[np.ndarray, "weighting 2*split concept"]:
    """Returns cross-fitted levels: each split both ways under every weighting.

    Copies of a block in a resample always stay in the same half.
    """
    groups = weights.shape[1]
    first = (weights[:, None] * halves).reshape(-1, groups)
    second = (weights[:, None] * (1 - halves)).reshape(-1, groups)
    both = [
        resampling.levels(found, one, other).reshape(len(weights), len(halves), -1)
        for one, other in ((first, second), (second, first))
    ]
    return np.concatenate(both, axis=1)


def estimates(
    result: Result, thresholds: Sequence[float] | None = None
) -> LayerEstimates | None:
    """Returns intervals for all counts of a layer; None as for `sample`.

    Args:
      result: result of the layer.
      thresholds: IoU thresholds; by default those of the result.
    """
    thresholds = thresholds or result.iou_thresholds
    samples = sample(result, lowest=min(thresholds, default=resampling.LOWEST))
    return None if samples is None else summarize(samples, thresholds)


def summarize(samples: Samples, thresholds: Sequence[float]) -> LayerEstimates:
    """Returns the intervals from resamples."""
    names = (*reported_categories(samples.categories), TOTAL)
    counts = {
        threshold: {
            name: _estimate(*samples.counts(threshold, name), samples.groups)
            for name in names
        }
        for threshold in thresholds
    }
    return LayerEstimates(counts, samples.stability)


def expected(samples: Samples, threshold: float) -> Interval:
    """Returns only the total's `Estimate.expected`, cheap for many thresholds."""
    plain = (samples.plain > threshold).sum(axis=-1)
    return _estimate(plain, plain, samples.groups).expected


def difference(
    first: Samples, second: Samples, threshold: float, category: str = TOTAL
) -> Estimate:
    """Estimates the count of `second` minus that of `first`, on the same images."""
    counts = [samples.counts(threshold, category) for samples in (first, second)]
    plain, crossed = (b - a for a, b in zip(*counts, strict=True))
    return _estimate(plain, crossed, min(first.groups, second.groups), signed=True)


def unpaired(
    first: Samples, second: Samples, threshold: float, category: str = TOTAL
) -> Estimate:
    """Like `difference`, for networks on different images, whose noise is unshared."""
    counts = [samples.counts(threshold, category) for samples in (first, second)]
    # Another order of the resamples makes the draws independent.
    plain, crossed = (
        np.concatenate([b[:1] - a[:1], b[1:] - a[:0:-1]])
        for a, b in zip(*counts, strict=True)
    )
    return _estimate(plain, crossed, min(first.groups, second.groups), signed=True)


def _estimate(plain, crossed, groups: int, signed: bool = False) -> Estimate:
    # Student's t; importing scipy.stats would take a second.
    width = scipy.special.stdtrit(groups - 1, (1 + CONFIDENCE) / 2)
    width *= np.sqrt(groups / (groups - 1))
    noise, crossed_noise = (width * values[1:].std() for values in (plain, crossed))

    def interval(low, high, half):
        low, high = low - half, high + half
        return Interval(float(low if signed else max(low, 0.0)), float(high))

    count, fitted = int(plain[0]), float(crossed[0])
    return Estimate(
        count=count,
        expected=interval(count, count, max(noise, _NARROWEST)),
        cross_fitted=fitted,
        interval=interval(fitted, fitted, max(crossed_noise, _NARROWEST)),
        population=interval(
            min(count, fitted),
            max(count, fitted),
            max(noise, crossed_noise, _NARROWEST_POPULATION),
        ),
    )


def _spread(weights, filled):
    """Expands weights of the groups with images to all groups."""
    spread = np.zeros((len(weights), len(filled)))
    spread[:, filled] = weights
    return spread
