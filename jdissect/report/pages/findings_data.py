"""Prepares formulas, chance, verified labels and scores for the scripts of pages."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jdissect.report.findings import Findings
from jdissect.report.pages import embedding
from jdissect.report.pages.layer_data import best_concepts, short
from jdissect.results.layer_result import Result
from jdissect.scoring import of_result

MOST_IN_SET = 12  # concepts that are shown of a unit's set
STEP = 1000  # thresholds in [0, 1] at which counts by chance are given
SCORE_BYTES = 1_500_000  # for all layers together
_PERMUTATIONS = 256  # counted at a time
# {score: (name, decimals, what it is)}
SCORES = {
    "f1": ("F1", 3, "2 I / (F + C)"),
    "precision": ("precision", 3, "share of the pixels where the unit fires, I / F"),
    "recall": ("recall", 3, "share of the concept's pixels, I / C"),
    "mcc": ("MCC", 3, "Matthews' correlation of the masks"),
    "auprc": ("AUPRC", 3, "of the concept as a predictor of the unit's mask"),
    "mutual_information": ("MI", 4, "mutual information of the masks, in nats"),
    "iqr": ("IQR", 4, "information quality ratio"),
    "pmi": ("PMI", 2, "pointwise mutual information, in nats"),
    "ceiling": ("ceiling", 3, "IoU at most, for areas of this size"),
    "sample_coverage": ("sample cov.", 3, "share of images with the concept"),
    "explanation_coverage": ("expl. cov.", 3, "share of images where the unit fires"),
    "pearson": ("Pearson", 3, "correlation of activations with the concept"),
    "cosine": ("cosine", 3, "cosine of activations and the concept"),
    "auroc": ("AUROC", 3, "of activations against the concept"),
    "average_precision": ("AP", 3, "average precision of activations"),
    "best_iou": ("best IoU", 3, "IoU at the unit's best threshold"),
}


def unit_arrays(result: Result, found: Findings) -> dict[str, Any]:
    """Returns what is known by unit, and counts by chance; {} for nothing."""
    return {
        **_of_formulas(found.formulas),
        **_of_chance(found.chance, result),
        **_of_verified(found.verified, len(result.thresholds)),
    }


def _of_formulas(formulas) -> dict[str, Any]:
    if formulas is None:
        return {}
    settings = formulas.settings
    return {
        "formula": embedding.texts([short(text) for text in formulas.formulas]),
        "formulaIou": embedding.packed(formulas.iou, "f8"),
        "formulaLow": embedding.packed(formulas.low, "f4"),
        "formulaHigh": embedding.packed(formulas.high, "f4"),
        "formulaFitted": embedding.packed(formulas.cross_fitted, "f4"),
        "formulaLength": embedding.packed_integers(formulas.lengths),
        "formulaSearch": f"{settings.method}, up to {settings.length} concepts",
        "formulaMeans": [round(mean, 4) for mean in formulas.mean_iou],
    }


def _of_chance(chance, result: Result) -> dict[str, Any]:
    if chance is None:
        return {}
    sizes = chance.sets.sizes
    kept = np.minimum(sizes, MOST_IN_SET)
    place = np.arange(len(chance.sets.column)) - np.repeat(
        chance.sets.start[:-1], sizes
    )
    detectors, concepts = by_chance(chance.null, len(result.concepts))
    return {
        "p": embedding.packed(chance.values.pooled, "f4"),
        "q": embedding.packed(chance.values.q, "f8"),
        "permutations": chance.permutations,
        "setSize": embedding.packed_integers(sizes),
        "setStart": embedding.packed_integers(np.append(0, np.cumsum(kept))),
        "setConcept": embedding.packed_integers(
            chance.sets.column[place < MOST_IN_SET]
        ),
        "chanceStep": STEP,
        **_counts("chanceDetectors", detectors),
        **_counts("chanceConcepts", concepts),
    }


def _counts(name: str, counts: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    mean, high = counts
    return {
        name: embedding.packed(mean, "f4"),
        f"{name}High": embedding.packed_integers(high),
    }


def by_chance(null, concepts: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Counts what chance alone gives at the thresholds 0, 1 / STEP, 2 / STEP, ...

    Args:
      null: `chance_level.permutation.Best` of every permutation.
      concepts: number of concepts.

    Returns:
      (mean, 95 % point) over permutations of the number of detectors, and the same of
      the number of unique concepts, up to the threshold from which all are 0.
    """
    last = int(np.ceil(null.iou.max(initial=0) * STEP))
    counts: tuple[list, list] = ([], [])
    for start in range(0, len(null.iou), _PERMUTATIONS):
        some = slice(start, start + _PERMUTATIONS)
        iou, concept = null.iou[some], null.concept[some]
        best = np.zeros((len(iou), concepts))
        number, unit = np.nonzero(concept >= 0)
        np.maximum.at(best, (number, concept[number, unit]), iou[number, unit])
        counts[0].append(_above(iou, last))
        counts[1].append(_above(best, last))
    return tuple(_summary(np.concatenate(each)) for each in counts)


def _above(
    values: Float[np.ndarray, "permutation value"], last: int
) -> Int[np.ndarray, "permutation threshold"]:
    """Counts values above each threshold up to `last` / STEP."""
    thresholds = np.arange(last + 1) / STEP
    exceeded = np.searchsorted(thresholds, values)  # number of thresholds below
    width = last + 2
    flat = exceeded + width * np.arange(len(values))[:, None]
    counts = np.bincount(flat.reshape(-1), minlength=width * len(values))
    counts = counts.reshape(len(values), width)[:, 1:]
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1]


def _summary(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    high = np.quantile(counts, 0.95, axis=0, method="inverted_cdf")
    return counts.mean(axis=0), high.astype(np.int64)


# States of a unit's label, for the script.
_UNKNOWN, _UNJUDGED, _NOT_VERIFIED, _VERIFIED = range(4)


def _of_verified(verified, units: int) -> dict[str, Any]:
    if verified is None:
        return {}
    state = np.zeros(units, np.uint8)
    state[verified.unit] = np.where(
        verified.verified,
        _VERIFIED,
        np.where(verified.judged, _NOT_VERIFIED, _UNJUDGED),
    )
    ways = list(dict.fromkeys(verified.way))
    notes = list(dict.fromkeys(verified.note))

    def spread(values, kind: str, empty: float = np.nan):
        found = np.full(units, empty)
        found[verified.unit] = values
        return embedding.packed(found, kind)

    return {
        "verified": embedding.packed(state, "u1"),
        "auc": spread(verified.auc, "f4"),
        "aucLow": spread(verified.auc_low, "f4"),
        "aucHigh": spread(verified.auc_high, "f4"),
        "control": spread(verified.control, "f4"),
        "verifiedImages": spread(verified.images, "u4", 0),
        "way": spread([ways.index(way) for way in verified.way], "u4", 0),
        "ways": embedding.texts([short(way) for way in ways]),
        "note": spread([notes.index(note) for note in verified.note], "u4", 0),
        "notes": embedding.texts([short(note) for note in notes]),
    }


def score_arrays(result: Result, found: Findings, room: int) -> dict[str, Any] | None:
    """Returns scores of each unit's best concepts; None without any.

    Args:
      result: result of the layer.
      found: what else is known of it.
      room: bytes; where they are few, only some of the concepts have scores.
    """
    columns, _ = best_concepts(result)
    units = len(columns)
    every = np.arange(units)[:, None]
    values = {
        name: each
        for name, each in of_result.of_pairs(result, every, columns).items()
        if name in SCORES
    }
    if found.measured is not None:
        values |= _measured(found.measured, columns)
    names = [name for name in SCORES if name in values]
    if not names or not units or not columns.size:
        return None
    of_one = units * len(names) * 16 // 3  # in base64
    shown = min(max(room // of_one, 1), columns.shape[1])
    table = np.stack([values[name][:, :shown] for name in names], axis=-1)
    return {
        "names": embedding.texts(names),
        "shown": shown,
        "values": embedding.packed(table, "f4"),
    }


def _measured(measured, columns: Int[np.ndarray, "unit best"]) -> dict[str, Any]:
    """Returns {score: [unit, best]}, NaN for pairs that were not ranked."""
    found: dict[str, np.ndarray] = {}
    for place in np.ndindex(*columns.shape):
        of_pair = measured.of_pair(place[0], int(columns[place]))
        for name, value in of_pair.items():
            found.setdefault(name, np.full(columns.shape, np.nan))[place] = value
    return found


def labels() -> dict[str, dict[str, Any]]:
    """Returns what the script shows of each score."""
    return {
        name: {"label": label, "decimals": decimals, "about": about}
        for name, (label, decimals, about) in SCORES.items()
    }
