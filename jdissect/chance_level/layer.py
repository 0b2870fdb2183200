"""Measures what chance alone gives for one layer.

packed = pack(images)                  masks and label maps, 32 pixels in a word
null(packed)                           best IoUs under permutations of the label maps
p_values, concept_sets                 which units are above chance, and of what
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jdissect.analysis import uncertainty
from jdissect.analysis.concept_sets import ConceptSets, concept_sets
from jdissect.base.concepts import reported_categories
from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.chance_level.p_values import PValues, effective_images, p_values
from jdissect.chance_level.packed import pack
from jdissect.chance_level.permutation import Best, Counter, null
from jdissect.results.layer_result import Result

FEWEST, MOST = 20, 10_000  # permutations
HIGH = 0.95  # of the permutations are at most this high


class ByChance(NamedTuple):
    """A count that chance alone gives.

    Attributes:
      mean: mean over permutations.
      high: the count that 95 % of the permutations do not exceed.
    """

    mean: float
    high: int


@dataclasses.dataclass(frozen=True, eq=False)
class Chance:
    """One layer's best IoUs against chance.

    Attributes:
      seed: seed of the permutations.
      null: best IoU and its concept of every unit, [permutation, unit].
      values: p-values and q-values of the observed best IoUs.
      sets: the concepts of each unit that cannot be told from its best one.
    """

    seed: int
    null: Best
    values: PValues
    sets: ConceptSets

    @property
    def permutations(self) -> int:
        """Number of permutations."""
        return len(self.null.iou)

    def found(self, alpha: float = 0.05) -> Bool[np.ndarray, " unit"]:
        """Returns the units above chance at a false discovery rate of `alpha`."""
        return self.values.q <= alpha

    def level(self, share: float = 0.05) -> float:
        """Returns the IoU that chance alone exceeds in `share` of the units."""
        return float(np.quantile(self.null.iou, 1 - share, method="higher"))

    def detectors(self, threshold: float) -> ByChance:
        """Returns how many detectors chance alone gives."""
        return _by_chance((self.null.iou > threshold).sum(axis=1))

    def unique_concepts(
        self, threshold: float, categories: tuple[str, ...]
    ) -> Mapping[str, ByChance]:
        """Returns how many unique concepts chance alone gives.

        Args:
          threshold: IoU threshold.
          categories: category of each concept.

        Returns:
          {category, and 'total': count}.
        """
        there = np.zeros((self.permutations, len(categories)), bool)
        number, unit = np.nonzero(self.null.iou > threshold)
        there[number, self.null.concept[number, unit]] = True
        names = np.array(categories, dtype=str)
        counts = {
            name: there[:, names == name].sum(axis=1)
            for name in reported_categories(categories)
        }
        counts["total"] = there.sum(axis=1)
        return {name: _by_chance(count) for name, count in counts.items()}


def _by_chance(counts: Int[np.ndarray, " permutation"]) -> ByChance:
    high = np.quantile(counts, HIGH, method="inverted_cdf") if len(counts) else 0
    return ByChance(float(counts.mean()) if len(counts) else 0.0, int(high))


def check(permutations: int, alpha: float) -> None:
    """Rejects numbers of permutations that cannot show what is asked for.

    Raises:
      UserError: too few or too many, or alpha is no level.
    """
    if not 0 < alpha <= 0.5:
        raise UserError(f"--alpha is {alpha:g}; it must be above 0 and at most 0.5")
    # At the level itself: (1 + 0) / (1 + P) is below alpha from 1 / alpha on.
    least = max(FEWEST, int(np.ceil(round(1 / alpha, 6))))
    if not least <= permutations <= MOST:
        raise UserError(
            f"--permutations is {permutations}; at --alpha={alpha:g} it must be "
            f"from {least} to {MOST:,}"
        )


def check_result(result: Result, where: str) -> None:
    """Rejects a layer without counts by block, or with too few images.

    Args:
      result: result of the layer.
      where: the layer's folder, for the message.

    Raises:
      UserError: the reason.
    """
    if why := uncertainty.why_not(result):
        raise UserError(f"{where} cannot be compared with chance: {why}")


def measure(
    result: Result,
    images: Iterable[Any],
    permutations: int,
    seed: int,
    progress: Progress | None = None,
) -> Chance:
    """Compares a layer with chance.

    Args:
      result: result of the layer, with counts by block.
      images: see `packed.pack`; the images that were counted, in order.
      permutations: number of permutations.
      seed: see `permutation.draw`.
      progress: where it is shown; by default nowhere.

    Raises:
      UserError: as `check_result` and `pack`; or the images do not give the best IoUs
        of the result.
    """
    check_result(result, result.layer or "the layer")
    assert result.blocks is not None  # checked
    category = result.blocks.category
    progress = progress or Progress(silent=True, ticking=False)
    packed = pack(images, *result.intersection.shape)
    observed = Counter(packed, category).best(np.arange(packed.images))
    if packed.images != result.images or (observed.iou != result.best_iou).any():
        raise UserError(
            f"{result.layer or 'the layer'}: the images no longer give the IoUs that "
            "are stored; dissect again"
        )
    with progress.counted("permutations", permutations, unit="permutation") as task:
        chance = null(packed, category, permutations, seed, task.advance)
    fires = packed.fires()
    squares = np.asarray((fires * fires).sum(axis=0))
    spread = effective_images(np.asarray(fires.sum(axis=0)), squares)
    values = p_values(result.best_iou, chance.iou, spread)
    sets = concept_sets(result)
    assert sets is not None  # checked
    return Chance(seed, chance, values, sets)


def summary(chance: Chance, result: Result) -> dict[str, Any]:
    """Returns counts beside those by chance, at the result's thresholds, as JSON."""

    def at(threshold: float) -> dict[str, Any]:
        by_chance = chance.unique_concepts(threshold, result.categories)
        return {
            "detector_units": int(result.detectors(threshold).sum()),
            "detector_units_by_chance": _json(chance.detectors(threshold)),
            "unique_concepts": result.unique_concepts(threshold),
            "unique_concepts_by_chance": {n: _json(c) for n, c in by_chance.items()},
        }

    return {str(threshold): at(threshold) for threshold in result.iou_thresholds}


def _json(count: ByChance) -> dict[str, float]:
    return {"mean": round(count.mean, 6), "high": count.high}
