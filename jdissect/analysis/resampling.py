"""Recounts unique concepts for other selections of the images.

A *weighting* gives every group of images (`group_counts`) a weight; the IoU of a unit
and a concept is then a ratio of weighted sums. For many weightings, such as the
resamples of a bootstrap, that is two matrix products, computed here:
[weighting, group] x [group, pair].

Only *candidates* are considered: pairs of a unit and a concept that could be the unit's
best in some half or resample, a few of the 1,800 concepts per unit.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from jdissect.results.group_counts import GroupedCounts
from jdissect.results.layer_result import Result

LOWEST = 0.01  # lowest IoU of interest
# A pair is dropped if its IoU over all images is below this share of its unit's best,
_SHARE = 0.05
# or more than this many standard errors below it.
_ERRORS = 6.0
_CHUNK = 2**22  # IoUs at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of a unit and a concept with their counts by group.

    Attributes:
      unit, column: int64[pair], ascending by unit, then column.
      intersection, union: float64[group, pair]; integers.
      units, concepts: number of units and concepts.
    """

    unit: Int[np.ndarray, " pair"]
    column: Int[np.ndarray, " pair"]
    intersection: Float[np.ndarray, "group pair"]
    union: Float[np.ndarray, "group pair"]
    units: int
    concepts: int

    @property
    def starts(self) -> Int[np.ndarray, " unit"]:
        """Index of the first pair of every unit that has one, ascending."""
        return np.flatnonzero(np.diff(self.unit, prepend=-1))

    def iou(
        self, weights: Float[np.ndarray, "weighting group"]
    ) -> Float[np.ndarray, "weighting pair"]:
        """Returns the IoU of every pair; 0/0 is 0."""
        return (weights @ self.intersection) / np.maximum(weights @ self.union, 1.0)

    def best(
        self, iou: Float[np.ndarray, "weighting pair"]
    ) -> Int[np.ndarray, "weighting unit"]:
        """Returns each unit's pair of highest IoU, the first on a tie; see `starts`."""
        starts = self.starts
        highest = np.maximum.reduceat(iou, starts, axis=1)
        lengths = np.diff(starts, append=len(self.unit))
        is_best = iou == np.repeat(highest, lengths, axis=1)
        pairs = np.where(is_best, np.arange(len(self.unit), dtype=np.int32), 2**31 - 1)
        return np.minimum.reduceat(pairs, starts, axis=1)


def candidates(
    result: Result,
    counts: GroupedCounts,
    lowest: float = LOWEST,
) -> Candidates:
    """Returns the pairs of a layer that matter at IoU thresholds >= `lowest`.

    Args:
      result: result of the layer.
      counts: its counts by group.
      lowest: IoU that a pair must be able to reach.
    """
    quotient = result.intersection / np.maximum(result.union, 1)
    best = quotient.max(axis=1, initial=0.0)
    enough = np.maximum(_SHARE * best, _SHARE * lowest)
    unit, column = np.nonzero((quotient >= enough[:, None]) & (quotient > 0))
    common = counts.intersection_of(unit, column)
    union = counts.union_of(unit, column, common)
    found = Candidates(
        unit,
        column,
        common.T.astype(np.float64),
        union.T.astype(np.float64),
        *quotient.shape,
    )
    return _pruned(found, lowest)


def _pruned(found: Candidates, lowest: float) -> Candidates:
    """Drops pairs that are many standard errors below their unit's best."""
    if not len(found.unit):
        return found
    groups = len(found.union)
    total = np.maximum(found.union.sum(axis=0), 1.0)
    iou = found.intersection.sum(axis=0) / total
    # Linearized error of a ratio: the residuals I_g - r U_g sum to 0.
    residual = found.intersection - iou * found.union
    spread = (residual**2).sum(axis=0) * groups / max(groups - 1, 1)
    # For half of the groups: sqrt(2) times the error of all.
    error = np.sqrt(2 * spread) / total
    highest = np.zeros(found.units)
    np.maximum.at(highest, found.unit, iou)
    of_best = np.zeros(found.units)
    np.maximum.at(of_best, found.unit, np.where(iou == highest[found.unit], error, 0))
    reach = iou + _ERRORS * error
    keep = reach >= np.maximum(
        lowest, highest[found.unit] - _ERRORS * of_best[found.unit]
    )
    return dataclasses.replace(
        found,
        unit=found.unit[keep],
        column=found.column[keep],
        intersection=np.ascontiguousarray(found.intersection[:, keep]),
        union=np.ascontiguousarray(found.union[:, keep]),
    )


def levels(
    found: Candidates,
    chosen_by: Float[np.ndarray, "weighting group"],
    judged_by: Float[np.ndarray, "weighting group"] | None = None,
) -> Float[np.ndarray, "weighting concept"]:
    """Returns the IoU up to which some unit detects each concept.

    One weighting chooses a unit's concept and another one gives the IoU, so that the
    choice does not profit from the noise in its own judgement.

    Args:
      found: the pairs.
      chosen_by: weightings that choose.
      judged_by: weightings that judge; by default the same.

    Returns:
      0 where no unit has the concept.
    """
    result = np.zeros((len(chosen_by), found.concepts))
    if not len(found.unit):
        return result
    for rows in _chunks(len(chosen_by), len(found.unit)):
        iou = found.iou(chosen_by[rows])
        pair = found.best(iou)
        if judged_by is not None:
            iou = found.iou(judged_by[rows])
        value = np.take_along_axis(iou, pair, axis=1)
        np.maximum.at(
            result[rows],
            (np.arange(len(pair))[:, None], found.column[pair]),
            value,
        )
    return result


def stability(
    found: Candidates, weights: Float[np.ndarray, "weighting group"]
) -> Float[np.ndarray, " unit"]:
    """Returns the share of weightings that give a unit the concept of all images.

    float32; NaN for a unit without candidates.
    """
    result = np.full(found.units, np.nan, np.float32)
    if not len(found.unit):
        return result
    whole = found.best(found.iou(np.ones((1, len(found.union)))))[0]
    same = np.zeros(len(whole))
    for rows in _chunks(len(weights), len(found.unit)):
        same += (found.best(found.iou(weights[rows])) == whole).sum(axis=0)
    result[found.unit[found.starts]] = same / max(len(weights), 1)
    return result


def _chunks(weightings: int, pairs: int) -> Iterator[slice]:
    size = max(1, _CHUNK // max(pairs, 1))
    for start in range(0, weightings, size):
        yield slice(start, start + size)
