"""How sure one may be of a count of unique concepts.

The number of unique concepts is a count of maxima over many noisy IoUs that exceed a
threshold. Two things can be asked of it, and a third of two networks, with the T_k held
fixed and the images in 32 blocks:

- *expected*: how the count would vary over other images of this number, by a bootstrap
  of the blocks (Efron 1979). Some of what it counts is noise above the threshold.
- *cross-fitted*: each unit's concept is chosen on half of the blocks and its IoU judged
  on the other half, both ways, averaged over splits, so that no unit is credited with
  the luck of its choice. Half of the images choose worse than all of them do, so that
  it is rather too low where the other one is rather too high.
- *population*: an interval for the count at infinitely many images. It spans both, and
  what the plain count varies by beyond them.
- differences of two networks are taken resample by resample: the same blocks, the same
  splits, so that what they share cancels.

Intervals are those of Student's t around what was found, as wide as the resamples say:
percentiles of the resamples would be off, since a resample has noise of its own on top
of the images'. None is narrower than half a concept (of a population, one) to each
side: 32 blocks cannot show what happens once in a hundred times. `COVERAGE` says how
often they contain the truth, as `benchmarks/coverage.py` found.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from jdissect.analysis import resampling
from jdissect.base.concepts import reported_categories
from jdissect.results.group_counts import GroupedCounts
from jdissect.results.layer_result import Result

CONFIDENCE = 0.95
RESAMPLES = 500  # of the count
CROSSED_RESAMPLES = 200  # of the cross-fitted count, which takes more of each
SPLITS = 4  # a resample; both ways each
FEWEST_GROUPS = 8  # with images; fewer give no intervals
TOTAL = "total"
_SEED = 20240923
_NARROWEST, _NARROWEST_POPULATION = 0.5, 1.0

# Shares of 200 synthetic populations of each kind whose truth was in the interval:
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
REACHED = 0.9  # what an interval is held to


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def caveat() -> str:
    """What a figure with intervals must say; '' where they hold what they promise."""
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
    """Of a number of unique concepts, or of a difference of two.

    Attributes:
      count: as it was found.
      expected: interval for what is to be expected of this many images.
      cross_fitted: the cross-fitted count.
      interval: for what is to be expected of that.
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
      plain: float64[1 + resample, concept]; the first of all images.
      crossed: float64[1 + resample, split, concept]; likewise.
      stability: float32[unit], share of resamples in which a unit keeps its concept;
        NaN for a unit that has none.
      categories: of the concepts.
      groups: blocks that hold images.
    """

    plain: Float[np.ndarray, "resample concept"]
    crossed: Float[np.ndarray, "resample split concept"]
    stability: Float[np.ndarray, " unit"]
    categories: tuple[str, ...]
    groups: int

    @functools.cached_property
    def _in_category(self) -> Mapping[str, np.ndarray]:
        names = np.array(self.categories, dtype=str)
        found = {name: names == name for name in reported_categories(self.categories)}
        return {**found, TOTAL: np.ones(len(names), bool)}

    def counts(self, threshold: float, category: str = TOTAL):
        """(counts, cross-fitted counts), float64[1 + resample] each."""
        here = self._in_category[category]
        crossed = (self.crossed[..., here] > threshold).sum(axis=-1).mean(axis=-1)
        return (self.plain[:, here] > threshold).sum(axis=-1), crossed


@dataclasses.dataclass(frozen=True)
class LayerEstimates:
    """Of a layer.

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

    The draws depend on nothing but which blocks hold images, so that those of networks
    on the same images belong together.

    Args:
      result: of the layer.
      counts: by group; by default `result.blocks`.
      lowest: IoU threshold, the lowest that will be asked for.

    Returns:
      None where `why_not` has a reason.
    """
    counts = counts or result.blocks
    if why_not(result, counts):
        return None
    found = resampling.candidates(result, counts, min(lowest, resampling.LOWEST))
    return resample(found, _filled(counts), result.categories)


def why_not(result: Result, counts: GroupedCounts | None = None) -> str:
    """Why a layer has no intervals, in words that follow its name; '' where it has.

    Args:
      result: of the layer.
      counts: by group; by default `result.blocks`.
    """
    counts = counts or result.blocks
    if not result.concepts:
        return "it has no concepts"
    if counts is None:
        return "its counts by block of images were not kept"
    if (blocks := int(_filled(counts).sum())) < FEWEST_GROUPS:
        return (
            f"too few images: {result.images}, with counts in {blocks} of "
            f"{counts.groups} blocks, and {FEWEST_GROUPS} are needed"
        )
    return ""


def _filled(counts: GroupedCounts) -> Bool[np.ndarray, " group"]:
    """Whether there are counts of each group."""
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
      categories: of the concepts.
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


def draws(groups: int):
    """(weights [1 + resample, group], halves [split, group]) of a bootstrap.

    The first weights are all 1; a half has ones in `groups // 2` places.
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
) -> Float[np.ndarray, "weighting split concept"]:
    """Cross-fitted levels: both ways of every split under every weighting.

    A block that a resample has several times is all in one half.
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
    """Intervals for all counts of a layer; None as `sample` has it.

    Args:
      result: of the layer.
      thresholds: IoU; by default those of the result.
    """
    thresholds = thresholds or result.iou_thresholds
    samples = sample(result, lowest=min(thresholds, default=resampling.LOWEST))
    return None if samples is None else summarize(samples, thresholds)


def summarize(samples: Samples, thresholds: Sequence[float]) -> LayerEstimates:
    """The intervals that resamples give."""
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
    """The interval `Estimate.expected` of the total, alone: of many thresholds."""
    plain = (samples.plain > threshold).sum(axis=-1)
    return _estimate(plain, plain, samples.groups).expected


def difference(
    first: Samples, second: Samples, threshold: float, category: str = TOTAL
) -> Estimate:
    """Of the count of `second` less that of `first`, on the same images."""
    counts = [samples.counts(threshold, category) for samples in (first, second)]
    plain, crossed = (b - a for a, b in zip(*counts, strict=True))
    return _estimate(plain, crossed, min(first.groups, second.groups), signed=True)


def unpaired(
    first: Samples, second: Samples, threshold: float, category: str = TOTAL
) -> Estimate:
    """The same for networks on other images, whose noise is not shared."""
    counts = [samples.counts(threshold, category) for samples in (first, second)]
    # Another order of the resamples: independent draws.
    plain, crossed = (
        np.concatenate([b[:1] - a[:1], b[1:] - a[:0:-1]])
        for a, b in zip(*counts, strict=True)
    )
    return _estimate(plain, crossed, min(first.groups, second.groups), signed=True)


def _estimate(plain, crossed, groups: int, signed: bool = False) -> Estimate:
    # Student's t: scipy.stats would take a second to import.
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
    """Weights of the groups that hold images as weights of all."""
    spread = np.zeros((len(weights), len(filled)))
    spread[:, filled] = weights
    return spread
