"""Finds for each unit the concepts that cannot be told from its best one.

The best concept of a unit is the largest of many noisy IoUs. Its *set* holds every
concept that may be the best at infinitely many images, with a probability of at least
95 % for the one that is. Concept c stays in the set of a unit unless some other one is
clearly better:

    T(c) = max over c' of (IoU(c') - IoU(c)) / error(c', c) <= critical value of c.

Everything is paired: with I and U the counts of block g, the influence of the block on
an IoU r is (I_g - r U_g) / sum U (the linearized jackknife of a ratio), and the error
of a difference comes from the differences of influences, so that noise that two
concepts share cancels. The critical value is the 95 % point of the same maximum under
random weights of the blocks (a multiplier bootstrap), studentized and widened from the
normal to Student's distribution. Only concepts c' count in it that are not clearly
worse than c themselves.

Sources: confidence sets for the best, Hansen, Lunde and Nason 2011 (the model
confidence set, doi:10.3982/ECTA5771) and Mogstad et al. 2024
(doi:10.1093/restud/rdad006); the choice of c', Andrews and Soares 2010
(doi:10.3982/ECTA7502). `benchmarks/chance.py` measures how often the truth is in the
set.
"""

import dataclasses
import functools

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from jdissect.analysis import resampling, uncertainty
from jdissect.results.group_counts import GroupedCounts
from jdissect.results.layer_result import Result

CONFIDENCE = 0.95
LOWEST = resampling.LOWEST  # best IoU below which a unit has no set
DRAWS = 500
_SEED = 20261129


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptSets:
    """The concepts of each unit that cannot be told from its best one.

    Attributes:
      start: int64[unit + 1], first entry of each unit. A unit whose best IoU is below
        `LOWEST` has none.
      column: int64[entry], columns of concepts, by IoU descending for each unit: the
        first is its best concept.
    """

    start: Int[np.ndarray, " unit_edge"]
    column: Int[np.ndarray, " entry"]

    def of(self, unit: int) -> Int[np.ndarray, " entry"]:
        """Returns the columns of a unit's set, the best first."""
        return self.column[self.start[unit] : self.start[unit + 1]]

    @property
    def sizes(self) -> Int[np.ndarray, " unit"]:
        """Number of concepts in each unit's set."""
        return np.diff(self.start)


def concept_sets(
    result: Result, counts: GroupedCounts | None = None
) -> ConceptSets | None:
    """Returns the sets of a layer; None if `uncertainty.why_not` gives a reason.

    Args:
      result: result of the layer.
      counts: counts by group; by default `result.blocks`.
    """
    counts = counts or result.blocks
    if counts is None or uncertainty.why_not(result, counts):
        return None
    # Others need no candidates, of which they have the most.
    judged = result.best_iou >= LOWEST
    found = resampling.candidates(
        result.replace(intersection=result.intersection * judged[:, None]),
        counts,
        lowest=0.0,
    )
    return of_candidates(found, uncertainty.filled(counts))


def of_candidates(
    found: resampling.Candidates, filled: np.ndarray | None = None
) -> ConceptSets:
    """Returns the sets of units from their candidates.

    Args:
      found: pairs of a unit and a concept.
      filled: bool[group], whether a group holds images; by default all do.
    """
    if filled is None:
        filled = np.ones(len(found.union), bool)
    columns, sizes = [np.zeros(0, np.int64)], np.zeros(found.units, np.int64)
    ends = np.append(found.starts, len(found.unit))
    for first, last in zip(ends, ends[1:], strict=False):
        pairs = slice(first, last)
        total = np.maximum(found.union[:, pairs].sum(axis=0), 1.0)
        iou = found.intersection[:, pairs].sum(axis=0) / total
        influence = (
            found.intersection[filled, pairs] - iou * found.union[filled, pairs]
        ) / total
        kept = np.flatnonzero(not_worse(iou, influence))
        order = kept[np.argsort(-iou[kept], kind="stable")]
        columns.append(found.column[pairs][order])
        sizes[found.unit[first]] = len(order)
    return ConceptSets(np.append(0, np.cumsum(sizes)), np.concatenate(columns))


def not_worse(
    iou: Float[np.ndarray, " concept"], influence: Float[np.ndarray, "group concept"]
) -> np.ndarray:
    """Returns bool[concept], whether each may be the best.

    Args:
      iou: IoU of one unit with each concept.
      influence: influence of each group on these IoUs, which sum to 0.
    """
    groups = len(influence)
    product = influence.T @ influence
    square = np.diag(product)
    # error[c', c], of their difference
    error = np.sqrt(
        np.maximum(square[:, None] + square - 2 * product, 1e-30)
        * (groups / (groups - 1))
    )
    distance = (iou[:, None] - iou) / error
    np.fill_diagonal(distance, -np.inf)
    worst = distance.max(axis=0)
    degrees = groups - 1
    student = scipy.special.stdtrit(degrees, CONFIDENCE)
    wider = student / scipy.special.ndtri(CONFIDENCE)
    # The critical value of one rival and a bound for that of all, by Bonferroni.
    most = wider * -scipy.special.ndtri((1 - CONFIDENCE) / max(len(iou) - 1, 1))
    kept = worst <= student
    unclear = np.flatnonzero(~kept & (worst <= most))
    if not len(unclear):
        return kept
    near = -np.sqrt(np.log(groups))
    noise = (influence.T @ _weights(groups)).astype(np.float32)
    for concept in unclear:
        rivals = np.flatnonzero(distance[:, concept] >= near)
        scale = np.sqrt(groups / (groups - 1)) / error[rivals, concept]
        away = noise[rivals] - noise[concept]
        away *= scale[:, None].astype(np.float32)
        highest = np.sort(away.max(axis=0))
        critical = wider * highest[int(np.ceil(CONFIDENCE * DRAWS)) - 1]
        kept[concept] = worst[concept] <= critical
    return kept


@functools.cache
def _weights(groups: int) -> Float[np.ndarray, "group draw"]:
    """Returns normal weights of the groups, the same in every call."""
    return np.random.default_rng(_SEED).standard_normal((groups, DRAWS))
