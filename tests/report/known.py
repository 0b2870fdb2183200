"""Formulas, chance, labels and scores that were never computed, for any result."""

import numpy as np

from jdissect.analysis.concept_sets import ConceptSets
from jdissect.chance_level import stored as chance_files
from jdissect.chance_level.layer import Chance
from jdissect.chance_level.p_values import PValues
from jdissect.chance_level.permutation import Best
from jdissect.formulas import stored as formula_files
from jdissect.formulas.stored import Formulas, Settings
from jdissect.report.findings import Findings
from jdissect.results.layer_result import Result
from jdissect.scoring import measured as score_files
from jdissect.scoring.measured import Measured
from jdissect.verification.verified import Verified

HASH = "0"  # result hash in `small_runs.write`
PERMUTATIONS = 40


def make(result: Result, seed: int = 0) -> Findings:
    """Something of every kind, other than chance would give."""
    rng = np.random.default_rng([seed, 77])
    return Findings(
        formulas=formulas(result, rng),
        chance=chance(result, rng),
        verified=verified(result, rng),
        measured=measured(result, rng),
    )


def formulas(result: Result, rng) -> Formulas:
    """Every third unit has its concept alone; the last has none."""
    units = len(result.thresholds)
    own = [result.concepts[c] if c >= 0 else "" for c in result.best_concept]
    other = rng.integers(0, len(result.concepts), units)
    texts = [
        (name if unit % 3 == 0 else f"{name} AND NOT {result.concepts[other[unit]]}")
        * bool(name)
        for unit, name in enumerate(own)
    ]
    better = 1 + 0.5 * rng.random(units) * (np.arange(units) % 3 > 0)
    iou = np.minimum(result.best_iou * better, 1)
    low = np.where(np.arange(units) % 5 == 4, np.nan, iou * 0.9)
    return Formulas(
        settings=Settings(),
        unit_names=tuple(map(str, result.unit_names)),
        formulas=tuple(texts),
        lengths=np.array(
            [bool(t) * (1 + (n % 3 > 0)) for n, t in enumerate(texts)], np.int32
        ),
        iou=iou,
        low=low,
        high=np.minimum(low * 1.3, 1),
        cross_fitted=low * 1.05,
        concepts=tuple(own),
        concept_iou=result.best_iou,
        beam_iou=iou,
        visited=np.full(units, 100),
        mean_iou=(0.05, 0.07, 0.08),
        mean_cross_fitted=(0.04, 0.05, 0.06),
        atoms=12,
        result_hash=HASH,
    )


def chance(result: Result, rng) -> Chance:
    """Units of an even number are above chance, and have sets of 1, 2, ... concepts."""
    units, concepts = result.intersection.shape
    concept = rng.integers(-1, concepts, (PERMUTATIONS, units))
    null = Best(0.06 * rng.random(concept.shape) * (concept >= 0), concept)
    p = np.where(np.arange(units) % 2, 0.3, 0.001)
    sizes = np.where(result.best_concept >= 0, 1 + np.arange(units) % concepts, 0)
    columns = [
        (max(own, 0) + np.arange(size)) % concepts
        for own, size in zip(result.best_concept, sizes, strict=True)
    ]
    sets = ConceptSets(np.append(0, np.cumsum(sizes)), np.concatenate(columns))
    return Chance(3, null, PValues(p, p / 2, p), sets)


def verified(result: Result, rng) -> Verified:
    """Labels of IoU above 0.03: every fourth is not judged, every other verified."""
    unit = np.flatnonzero(result.detectors(0.03))
    rows = np.arange(len(unit))
    judged, right = rows % 4 > 0, rows % 2 > 0
    auc = np.where(judged, np.where(right, 0.9, 0.5), np.nan)
    column = result.best_concept[unit]
    return Verified(
        result_hash=HASH,
        layer=result.layer,
        iou_thresholds=result.iou_thresholds,
        unit=unit,
        name=tuple(str(result.unit_names[u]) for u in unit),
        concept=tuple(result.concepts[c] for c in column),
        category=tuple(result.categories[c] for c in column),
        iou=result.best_iou[unit],
        way=tuple("removed" if one else "skipped" for one in judged),
        images=np.where(judged, 30, 0),
        auc=auc,
        auc_low=auc - 0.1,
        auc_high=auc + 0.05,
        shift=auc,
        shift_low=auc - 0.1,
        shift_high=auc + 0.1,
        controls=np.where(judged, 20, 0),
        control=np.where(judged, 0.55, np.nan),
        margin=auc - 0.55,
        margin_low=auc - 0.65,
        margin_high=auc - 0.45,
        maximum=auc,
        note=tuple("" if one else "<b>too few pictures</b>" for one in judged),
    )


def measured(result: Result, rng) -> Measured:
    """Only the units' own concepts are ranked."""
    unit = np.flatnonzero(result.best_concept >= 0).astype(np.int32)
    bounds = np.repeat(rng.random((len(unit), 1)), 2, axis=1)
    return Measured(
        pearson=rng.uniform(-1, 1, result.intersection.shape).astype(np.float32),
        cosine=rng.uniform(-1, 1, result.intersection.shape).astype(np.float32),
        error=1e-9,
        unit=unit,
        column=result.best_concept[unit].astype(np.int32),
        auroc=bounds,
        average_precision=bounds / 2,
        best_iou=bounds / 4,
        best_threshold=rng.random(len(unit)).astype(np.float32),
        result_hash=HASH,
    )


def write(folder, result: Result, seed: int = 0) -> Findings:
    """Writes everything into the folder of a layer of a run."""
    found = make(result, seed)
    formula_files.write(folder, found.formulas)
    chance_files.write(folder, found.chance, result)
    found.verified.write(folder)
    score_files.write(folder, found.measured)
    return found
