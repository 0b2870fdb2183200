"""Searches the formulas of a layer and judges them: intervals and cross-fitting.

With more concepts a formula fits more of a unit's noise. So all formulas are searched
once more on half of the blocks of images and judged on the other half, both ways: the
mean of the two is the *cross-fitted* IoU. What the plain IoU is above it comes from
noise, and from a choice on half of the images, which is worse than one on all.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from jdissect.analysis import uncertainty
from jdissect.base.errors import UserError
from jdissect.formulas.atoms import Counts
from jdissect.formulas.beam import Beam, Found, Rules, Scored
from jdissect.formulas.formula import OPERATORS, Formula, concept_names, name
from jdissect.formulas.optimum import LONGEST, Optimum
from jdissect.formulas.stored import Formulas, Settings
from jdissect.runtime.resources import free_memory

METHODS = ("beam", "optimum")
MOST_LENGTH = 16
_DENSE = 10  # arrays of [concept, concept] of the optimum


def check(settings: Settings) -> Rules:
    """Returns the rules of a search.

    Raises:
      UserError: a setting is wrong.
    """
    length, beam, penalty = settings.length, settings.beam, settings.penalty
    if not 1 <= length <= MOST_LENGTH:
        raise UserError(
            f"length is {length}; a formula has from 1 to {MOST_LENGTH} concepts"
        )
    if beam < 1:
        raise UserError(f"beam is {beam}; at least 1 formula is needed")
    if not 0 < penalty <= 1:
        raise UserError(f"penalty is {penalty:g}; it must be above 0 and at most 1")
    if settings.method not in METHODS:
        raise UserError(
            f"method is '{settings.method:.40}'; use {' or '.join(METHODS)}"
        )
    if settings.method == "optimum" and length > LONGEST:
        raise UserError(
            f"length is {length}; the optimum is found for up to {LONGEST} concepts, "
            "method 'beam' finds longer formulas"
        )
    wrong = [text for text in settings.operators if text not in OPERATORS]
    if wrong or not settings.operators:
        given = wrong[0] if wrong else ""
        raise UserError(
            f"operators has '{given:.40}'; choose from {', '.join(OPERATORS)}"
        )
    numbers = sorted({OPERATORS.index(text) for text in settings.operators})
    return Rules(length, beam, penalty, tuple(numbers))


def check_memory(settings: Settings, concepts: int) -> None:
    """Rejects a search that does not fit into memory.

    Args:
      settings: how to search.
      concepts: number of concepts.

    Raises:
      UserError: it does not fit.
    """
    needed, instead = check(settings).bytes(concepts), "choose a smaller beam"
    dense = _DENSE * 8 * concepts**2
    if settings.method == "optimum" and dense > needed:
        needed, instead = dense, "use method 'beam'"
    free = free_memory()
    if free and needed > free:
        raise UserError(
            f"formulas of {concepts:,} concepts with a beam of {settings.beam:,} take "
            f"{needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free; "
            f"{instead}"
        )


def explain(
    counts: Counts,
    settings: Settings,
    concepts: Sequence[str],
    categories: Sequence[str],
    unit_names: Sequence[str] = (),
    result_hash: str = "",
    under_way: Callable[[str], None] = lambda text: None,
) -> Formulas:
    """Searches the best formula of every unit.

    Args:
      counts: pixels by unit, block and atom.
      settings: how to search.
      concepts, categories: names of the concepts, by column.
      unit_names: names of the units; by default their numbers.
      result_hash: identifies the run whose units they are.
      under_way: called with what is done next.

    Raises:
      UserError: a setting is wrong, or the search does not fit into memory.
    """
    rules = check(settings)
    check_memory(settings, len(concepts))
    under_way("searching formulas")
    beams, found = _found(counts, None, rules, settings.method)
    crossed = np.full((counts.units, rules.length), np.nan)
    filled = counts.filled
    enough = int(filled.sum()) >= uncertainty.FEWEST_GROUPS
    low = high = np.full(counts.units, np.nan)
    best = [f.best[-1] for f in found]
    if enough:
        under_way("judging formulas")
        low, high = _intervals(counts, best, filled)
        under_way("cross-fitting formulas")
        crossed = _crossed(counts, rules, settings.method, filled)
    names = concept_names(concepts, categories)
    single = [f.best[0] for f in found]
    iou = np.array([[s.iou for s in f.best] for f in found]).reshape(-1, rules.length)
    return Formulas(
        settings=settings,
        unit_names=tuple(map(str, unit_names)) or tuple(map(str, range(counts.units))),
        formulas=tuple(name(s.formula, names) for s in best),
        lengths=np.array([len(s.formula) for s in best], np.int32),
        iou=iou[:, -1],
        low=low,
        high=high,
        cross_fitted=crossed[:, -1],
        concepts=tuple(name(s.formula, names) for s in single),
        concept_iou=iou[:, 0],
        beam_iou=np.array([f.best[-1].iou for f in beams]),
        visited=np.array([f.visited for f in found], np.int64),
        mean_iou=tuple(iou.mean(axis=0).tolist()),
        mean_cross_fitted=tuple(crossed.mean(axis=0).tolist()),
        atoms=counts.atoms.holds.shape[0],
        result_hash=result_hash,
    )


def _found(counts, blocks, rules, method) -> tuple[list[Found], list[Found]]:
    """Returns what the beam found, and what `method` found."""
    matrix = counts.of(blocks)
    beams = Beam(counts.atoms, matrix, rules).search()
    if method == "beam":
        return beams, beams
    return beams, Optimum(counts.atoms, matrix, rules).search(beams)


def _crossed(counts, rules, method, filled) -> Float[np.ndarray, "unit length"]:
    """Returns the cross-fitted IoU of every unit's best formulas by length."""
    halves = np.zeros(len(filled), bool)
    halves[filled] = uncertainty.draws(int(filled.sum()))[1][0] > 0
    total = np.zeros((counts.units, rules.length))
    for choosing in (halves, filled & ~halves):
        _, found = _found(counts, choosing, rules, method)
        judging = _Judge(counts, filled & ~choosing)
        for unit, each in enumerate(found):
            for place, scored in enumerate(each.best):
                total[unit, place] += judging.iou(unit, scored.formula)
    return total / 2


class _Judge:
    """Computes the IoU of any formula over some blocks."""

    def __init__(self, counts: Counts, blocks):
        self._atoms, self._matrix = counts.atoms, counts.of(blocks)
        self._pixels = self._matrix[[-1]].toarray()[0]
        self._areas: dict[Formula, tuple[np.ndarray, int]] = {}

    def iou(self, unit: int, formula: Formula) -> float:
        if not formula:
            return 0.0
        if formula not in self._areas:
            mask = self._atoms.mask(formula)
            self._areas[formula] = mask, int(self._pixels[mask].sum())
        mask, area = self._areas[formula]
        entries = slice(*self._matrix.indptr[unit : unit + 2])
        atoms, pixels = self._matrix.indices[entries], self._matrix.data[entries]
        common = int(pixels[mask[atoms]].sum())
        fires = int(pixels[self._atoms.counts_for(formula)[atoms]].sum())
        return common / max(fires + area - common, 1)


def _intervals(
    counts: Counts, best: Sequence[Scored], filled
) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
    """Returns 95 % intervals of the IoU of given formulas, from their blocks.

    Student's t around the IoU, with the spread of resampled blocks.
    """
    common, union = by_block(counts, [s.formula for s in best])
    groups = int(filled.sum())
    weights, _ = uncertainty.draws(groups)
    resampled = (weights @ common[:, filled].T) / np.maximum(
        weights @ union[:, filled].T, 1
    )
    width = scipy.special.stdtrit(groups - 1, (1 + uncertainty.CONFIDENCE) / 2)
    half = width * np.sqrt(groups / (groups - 1)) * resampled[1:].std(axis=0)
    return np.maximum(resampled[0] - half, 0), np.minimum(resampled[0] + half, 1)


def by_block(
    counts: Counts, formulas: Sequence[Formula]
) -> tuple[Int[np.ndarray, "unit block"], Int[np.ndarray, "unit block"]]:
    """Returns (intersections, unions) of each unit with its formula, by block."""
    areas: dict[Formula, np.ndarray] = {}
    common = np.zeros((len(formulas), len(counts.filled)), np.int64)
    union = np.zeros_like(common)
    atoms = counts.atoms
    for unit, formula in enumerate(formulas):
        if not formula:
            continue
        mask = atoms.mask(formula)
        if formula not in areas:
            areas[formula] = counts.by_block(counts.units, mask)
        common[unit] = counts.by_block(unit, mask)
        fires = counts.by_block(unit, atoms.counts_for(formula))
        union[unit] = fires + areas[formula] - common[unit]
    return common, union
