"""Computes scores of units against concepts from counts of pixels and images.

For a unit and a concept, over the N pixels of the images that count for the concept's
category: the unit fires on F, the concept is on C, both are on I. With the logarithm to
base e and p(.) a share of the N pixels,

    iou                 I / (F + C - I)               Bau et al., CVPR 2017
    f1                  2 I / (F + C)
    precision           I / F                         activation coverage [1]
    recall              I / C                         detection accuracy [1, 2]
    mcc                 (I N - F C) / sqrt(F (N - F) C (N - C))
    auprc               I^2 / (F C) + (1 - I / F) F / N                      [3]
    mutual_information  sum of p(u, c) log(p(u, c) / p(u) p(c)), four cells  [4]
    iqr                 mutual_information / entropy of (u, c)               [4]
    pmi                 log(I N / (F C))
    ceiling             min(F, C) / max(F, C), which IoU cannot exceed
    sample_coverage     images where both overlap / images with the concept  [1]
    explanation_coverage  images where both overlap / images where the unit fires  [1]

A quotient 0 / 0 is 0, and so is `pmi` of a unit that never fires or of a concept that
is nowhere; `pmi` is -inf for two that never meet.

Sources: [1] La Rosa et al., NeurIPS 2023 (`src/metrics.py` of KRLGroup/Clustered-
Compositional-Explanations). [2] Makinwa et al., 2021. [3] `auprc` of `metrics.py` in
Trustworthy-ML-Lab/Neuron_Eval (Oikarinen et al., ICML 2025) for a concept of zeros and
ones: the concept ranks the pixels, and the unit's firing is the truth. That code calls
I / F recall and I / C precision. [4] `mutual_information`, `information_quality_ratio`
of `netdissect/tally.py` in davidbau/dissect.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special
from jaxtyping import Float, Int, Shaped

from jdissect.base.errors import UserError

if TYPE_CHECKING:
    import pandas

_AT_ONCE = 2**20  # pairs computed at a time


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of some pairs of a unit and a concept, int64 arrays that broadcast.

    Attributes:
      both: pixels of both, I.
      union: pixels of either, F + C - I.
      fires: pixels where the unit fires on the images that count, F.
      concept: pixels of the concept, C.
      pixels: pixels of the images that count, N.
      images_of_both, images_of_unit, images_of_concept: images where they overlap,
        where the unit fires, and with the concept.
    """

    both: Any
    union: Any
    fires: Any = None
    concept: Any = None
    pixels: Any = None
    images_of_both: Any = None
    images_of_unit: Any = None
    images_of_concept: Any = None


def _quotient(part: Any, whole: Any) -> Float[np.ndarray, "..."]:
    """Returns part / whole, 0 where both are 0."""
    return np.asarray(part) / np.where(np.asarray(whole) == 0, 1, whole)


def _shares(n: Counts) -> tuple[np.ndarray, ...]:
    """Returns the shares of the four cells, and of unit and concept."""
    whole = np.maximum(n.pixels, 1)
    cells = (
        n.both,
        n.fires - n.both,
        n.concept - n.both,
        n.pixels - n.fires - n.concept + n.both,
    )
    return (*(cell / whole for cell in cells), n.fires / whole, n.concept / whole)


def _mcc(n: Counts) -> np.ndarray:
    whole = np.maximum(n.pixels, 1)
    *_, fires, concept = _shares(n)
    variances = [
        share * ((n.pixels - count) / whole)
        for share, count in ((fires, n.fires), (concept, n.concept))
    ]
    covariance = n.both / whole - fires * concept
    deviation = np.sqrt(variances[0]) * np.sqrt(variances[1])
    return np.where(deviation > 0, _quotient(covariance, deviation), 0.0)


def _auprc(n: Counts) -> np.ndarray:
    precision, recall = _quotient(n.both, n.concept), _quotient(n.both, n.fires)
    return recall * precision + (1 - recall) * _quotient(n.fires, n.pixels)


def _mutual_information(n: Counts) -> np.ndarray:
    both, unit, concept, neither, fires, covered = _shares(n)
    total = 0.0
    for joint, alone in (
        (both, fires * covered),
        (unit, fires * (1 - covered)),
        (concept, (1 - fires) * covered),
        (neither, (1 - fires) * (1 - covered)),
    ):
        total = total + scipy.special.rel_entr(joint, alone)
    return np.where(np.isfinite(total), np.maximum(total, 0), 0.0)


def _iqr(n: Counts) -> np.ndarray:
    entropy = sum(scipy.special.entr(cell) for cell in _shares(n)[:4])
    return _quotient(_mutual_information(n), entropy)


def _pmi(n: Counts) -> np.ndarray:
    both, _, _, _, fires, covered = _shares(n)
    chance = fires * covered
    with np.errstate(divide="ignore"):
        found = np.log(_quotient(both, chance))
    return np.where(chance > 0, found, 0.0)


def _ceiling(n: Counts) -> np.ndarray:
    low, high = np.minimum(n.fires, n.concept), np.maximum(n.fires, n.concept)
    return _quotient(low, high)


_BY_BLOCK = ("fires", "concept")
_PIXELS = (*_BY_BLOCK, "pixels")
# {score: (what of `Counts` it needs beside `both` and `union`, function)}.
_SCORES: Mapping[str, tuple[tuple[str, ...], Callable[[Counts], np.ndarray]]] = {
    "iou": ((), lambda n: _quotient(n.both, n.union)),
    "f1": (_BY_BLOCK, lambda n: _quotient(2 * n.both, n.fires + n.concept)),
    "precision": (_BY_BLOCK, lambda n: _quotient(n.both, n.fires)),
    "recall": (_BY_BLOCK, lambda n: _quotient(n.both, n.concept)),
    "mcc": (_PIXELS, _mcc),
    "auprc": (_PIXELS, _auprc),
    "mutual_information": (_PIXELS, _mutual_information),
    "iqr": (_PIXELS, _iqr),
    "pmi": (_PIXELS, _pmi),
    "ceiling": (_BY_BLOCK, _ceiling),
    "sample_coverage": (
        ("images_of_both", "images_of_concept"),
        lambda n: _quotient(n.images_of_both, n.images_of_concept),
    ),
    "explanation_coverage": (
        ("images_of_both", "images_of_unit"),
        lambda n: _quotient(n.images_of_both, n.images_of_unit),
    ),
}
NAMES = tuple(_SCORES)


def score(name: str, counts: Counts) -> Float[np.ndarray, "..."]:
    """Returns a score, float64, of pairs with the given counts.

    Args:
      name: one of NAMES.
      counts: the counts that this score needs; others may be None.
    """
    return np.asarray(_SCORES[name][1](counts), np.float64)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Scores of pairs of a unit and a concept.

    Attributes:
      values: {score: float64[pair]}, or float64[unit, concept] for all pairs. A unit
        without a concept has NaN in place of the scores of its best one.
      missing: {score: why it is not there}.
      unit: int64[pair], unit of each pair, or of each row.
      column: int64[pair], concept of each pair, -1 for none, or of each column.
      unit_names: name of each unit of the layer.
      concepts, categories: names by column.
    """

    values: Mapping[str, Float[np.ndarray, "..."]]
    missing: Mapping[str, str]
    unit: Int[np.ndarray, " pair"]
    column: Int[np.ndarray, " pair"]
    unit_names: Shaped[np.ndarray, " unit"]
    concepts: tuple[str, ...]
    categories: tuple[str, ...]

    def __getitem__(self, name: str) -> Float[np.ndarray, "..."]:
        """Returns a score.

        Raises:
          UserError: it does not exist, or is missing; the message says why.
        """
        if name not in self.values:
            raise UserError(self.missing.get(name) or _unknown(name))
        return self.values[name]

    def __repr__(self) -> str:
        pairs = next((each.size for each in self.values.values()), 0)
        return f"<Scores of {pairs:,} pairs: {', '.join(self.values)}>"

    def pairs(self) -> Iterator[tuple[Any, str | None, str | None, dict[str, float]]]:
        """Yields (unit's name, concept, category, {score: value}) of every pair.

        Concept and category are None for a unit without a concept.
        """
        several = any(each.ndim == 2 for each in self.values.values())
        for place, unit in enumerate(self.unit.tolist()):
            name = self.unit_names[unit].item()
            columns = self.column if several else self.column[place : place + 1]
            for there, column in enumerate(columns.tolist()):
                at = (place, there) if several else place
                yield (
                    name,
                    self.concepts[column] if column >= 0 else None,
                    self.categories[column] if column >= 0 else None,
                    {score: float(each[at]) for score, each in self.values.items()},
                )

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns one row per pair: unit, concept, category, and a column per score.

        Raises:
          UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("pandas is not installed: pip install pandas") from None
        return pandas.DataFrame(
            [
                {"unit": unit, "concept": concept, "category": category, **scores}
                for unit, concept, category, scores in self.pairs()
            ]
        )


def check(names: Sequence[str], missing: Mapping[str, str]) -> None:
    """Rejects scores that do not exist, or that a result does not have.

    Raises:
      UserError: names the score and says why.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(_unknown(name))
        if name in missing:
            raise UserError(f"there is no {name}: {missing[name]}")


def _unknown(name: str) -> str:
    return f"there is no score {name!r:.40}; there are: {', '.join(NAMES)}"


def needs(name: str) -> tuple[str, ...]:
    """Returns what of `Counts` a score needs beside `both` and `union`."""
    return _SCORES[name][0]


def of_all_pairs(
    names: Sequence[str],
    counts: Callable[[Int[np.ndarray, " unit"]], Counts],
    units: int,
    concepts: int,
) -> dict[str, Float[np.ndarray, "unit concept"]]:
    """Returns scores of every unit and concept.

    Args:
      names: the scores.
      counts: units -> their counts, [unit, concept].
      units, concepts: numbers of units and concepts.
    """
    found = {name: np.zeros((units, concepts)) for name in names}
    step = max(_AT_ONCE // max(concepts, 1), 1)
    for start in range(0, units, step):
        some = np.arange(start, min(start + step, units))
        here = counts(some)
        for name, values in found.items():
            values[some] = score(name, here)
    return found
