"""Finds formulas by beam search, as the code of compositional explanations does.

Source: Mu and Andreas 2020 (jayelm/compexp, vision/dissection/neuron.py,
compute_best_iou). The beam holds the best formulas so far, at first the concepts of
highest IoU. In every round each formula in it is joined with each concept by OR, AND
and AND NOT; the best of old and new ones make the next beam. The first comes first on a
tie. Nothing is left out: also `a OR a` and both of `a OR b` and `b OR a` are candidates
and take places of the beam.

For a formula p and a concept c one sum over atoms, of p AND c, gives all three:

    p OR c: I_p + I_c - I_pc,   p AND c: I_pc,   p AND NOT c: I_p - I_pc

with I pixels where the unit fires too; likewise for the areas, without the unit.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from jdissect.formulas.atoms import Atoms
from jdissect.formulas.formula import AND, OR, Formula, Step, canonical, concept

_BATCH_BYTES = 2**27  # for the candidates of the units that are searched at once
_MASKS = 2**26  # atoms in the masks of formulas at a time
_COPIES = 4  # arrays of 8 bytes per candidate at the peak


@dataclasses.dataclass(frozen=True)
class Rules:
    """How a beam search goes on; the defaults are those of jayelm/compexp.

    Attributes:
      length: most concepts in a formula.
      beam: number of formulas in the beam.
      penalty: factor in (0, 1] on the IoU for each concept after the first one.
      operators: which operators join concepts, numbers of `formula.OPERATORS`.
      first: number of concepts in the first beam; by default `beam`.
      distinct: whether formulas that differ only in order count once, concepts do not
        repeat in a formula, only the longest formulas are joined with concepts, and
        only the best is kept in the last round, as in the package
        compositional_explanations 0.0.3.4 (whose first beam is twice as large).
    """

    length: int = 3
    beam: int = 5
    penalty: float = 1.0
    operators: tuple[int, ...] = (0, 1, 2)
    first: int = 0
    distinct: bool = False

    def bytes(self, columns: int) -> int:
        """Returns the memory that the search takes for one unit."""
        joined = self.beam * columns * (len(self.operators) if self.length > 1 else 1)
        return _COPIES * 8 * max(joined, self.first, columns)


class Scored(NamedTuple):
    """A formula with its counts of pixels.

    Attributes:
      formula: the formula; () if the unit overlaps no concept.
      intersection: pixels of both the unit and the formula.
      area: pixels of the formula.
      fires: pixels where the unit fires, in the images that count for the formula.
    """

    formula: Formula
    intersection: int
    area: int
    fires: int

    @property
    def union(self) -> int:
        return self.fires + self.area - self.intersection

    @property
    def iou(self) -> float:
        """float64; 0/0 is 0."""
        return self.intersection / max(self.union, 1)


NONE = Scored((), 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found for one unit.

    Attributes:
      best: the best formula of at most 1, 2, ... concepts.
      visited: number of formulas whose counts were computed.
    """

    best: tuple[Scored, ...]
    visited: int


class Beam:
    """Searches formulas for units on the same pixels.

    Args:
      atoms: the atoms.
      counts: int64 CSR [unit + 1, atom], see `Counts.of`.
      rules: how to search.
    """

    def __init__(self, atoms: Atoms, counts: scipy.sparse.csr_array, rules: Rules):
        self._atoms, self._rules = atoms, rules
        self._fires = counts[:-1]
        self._areas = Areas(atoms, counts[[-1]].toarray()[0])

    def search(self) -> list[Found]:
        """Returns what was found for every unit."""
        size = max(1, _BATCH_BYTES // self._rules.bytes(self._atoms.holds.shape[1]))
        return [
            found
            for start in range(0, self._fires.shape[0], size)
            for found in self._batch(self._fires[start : start + size])
        ]

    def _batch(self, fires) -> list[Found]:
        own = Own(self._atoms, fires)
        visited = (own.common > 0).sum(axis=1)
        beams = self._concepts(own)
        best = [[_best(beam)] for beam in beams]
        for length in range(2, self._rules.length + 1):
            beams = self._round(fires, own, beams, length, visited)
            for unit, beam in enumerate(beams):
                best[unit].append(_best(beam))
        return [Found(tuple(b), int(v)) for b, v in zip(best, visited, strict=True)]

    def _concepts(self, own) -> list[list[Scored]]:
        """Returns the first beams: the concepts that overlap the units most."""
        atoms, rules, beams = self._atoms, self._rules, []
        for unit, common in enumerate(own.common):
            fires = own.fires(frozenset())[unit][atoms.domain]
            union = fires + self._areas.of_concepts - common
            score = np.where(common > 0, common / np.maximum(union, 1), -1.0)
            beams.append(
                [
                    Scored(
                        concept(column),
                        int(common[column]),
                        int(self._areas.of_concepts[column]),
                        int(fires[column]),
                    )
                    for column in _highest(score, rules.first or rules.beam)
                ]
            )
        return beams

    def _round(self, fires, own, beams, length, visited) -> list[list[Scored]]:
        """Joins the formulas of every beam with every concept."""
        rules = self._rules
        parents = [
            [s for s in beam if not rules.distinct or len(s.formula) == length - 1]
            for beam in beams
        ]
        areas = self._areas.of({s.formula for row in parents for s in row})
        common = _with_concepts(self._atoms, fires, parents)
        last = rules.distinct and length == rules.length
        new = []
        for unit, (beam, row) in enumerate(zip(beams, parents, strict=True)):
            if not row:
                new.append(beam[: 1 if last else rules.beam])
                continue
            joined = _Joined(
                row,
                own.common[unit],
                self._areas.of_concepts,
                np.array(common[unit]),
                np.array([areas[s.formula] for s in row]),
                own.fires_with(unit, [s.formula for s in row]),
                rules,
            )
            visited[unit] += joined.score.size
            new.append(joined.best(beam, 1 if last else rules.beam))
        return new


class _Joined:
    """Formulas of one unit joined with every concept.

    Args:
      parents: the formulas.
      concept_common, concept_area: int64[concept], pixels of each concept where the
        unit fires, and all.
      common, area: int64[parent, concept], the same of both parent and concept.
      fires: int64[parent, concept], where the unit fires in images that count.
      rules: how to search.

    Attributes:
      score: float64[parent, operator, concept], IoU with the penalty.
    """

    def __init__(
        self, parents, concept_common, concept_area, common, area, fires, rules
    ):
        self._parents, self._rules, self._fires = parents, rules, fires
        self._common = _Sums(
            np.array([s.intersection for s in parents]), concept_common, common
        )
        self._area = _Sums(np.array([s.area for s in parents]), concept_area, area)
        self.score = np.empty((len(parents), len(rules.operators), common.shape[1]))
        for place, operator in enumerate(rules.operators):
            both = self._common.joined(operator)
            union = fires + self._area.joined(operator) - both
            np.divide(both, np.maximum(union, 1), out=self.score[:, place])
        if rules.penalty != 1:
            for score, parent in zip(self.score, parents, strict=True):
                score *= rules.penalty ** len(parent.formula)
        if rules.distinct:
            for score, parent in zip(self.score, parents, strict=True):
                score[:, [step.column for step in parent.formula]] = -1

    def best(self, beam: list[Scored], keep: int) -> list[Scored]:
        """Returns the best of a beam and the joined formulas; the beam first on a tie.

        Then the first parent, concept and operator come first.
        """
        rules = self._rules
        old = [rules.penalty ** (len(s.formula) - 1) * s.iou for s in beam]
        if not rules.distinct:
            return [self._at(beam, place) for place in self._order(old, keep)]
        kept: dict = {}
        more = keep
        while len(kept) < keep and more < 8 * self.score.size:
            more *= 4
            for place in self._order(old, more):
                found = self._at(beam, place)
                kept.setdefault(canonical(found.formula), found)
        return list(kept.values())[:keep]

    def _order(self, old: list[float], count: int) -> Int[np.ndarray, " place"]:
        """Returns the places of the best, first the beam's, then as in `score`."""
        flat = self.score.reshape(-1)
        count = min(count, flat.size)
        least = max(0.0, -np.partition(-flat, count - 1)[count - 1])
        place = np.flatnonzero(flat >= least)
        parent, operator, column = np.unravel_index(place, self.score.shape)
        scores = np.concatenate([old, flat[place]])
        before = np.arange(-len(old), 0)  # the beam is before all parents
        ranks = [np.append(np.zeros_like(before), each) for each in (operator, column)]
        order = np.lexsort((*ranks, np.append(before, parent), -scores))[:count]
        return np.append(np.arange(len(old)), place + len(old))[order]

    def _at(self, beam: list[Scored], place: int) -> Scored:
        if place < len(beam):
            return beam[place]
        at = np.unravel_index(place - len(beam), self.score.shape)
        return self._scored(*map(int, at))

    def _scored(self, parent: int, place: int, column: int) -> Scored:
        operator = self._rules.operators[place]
        return Scored(
            (*self._parents[parent].formula, Step(operator, column)),
            int(self._common.joined(operator, parent, column)),
            int(self._area.joined(operator, parent, column)),
            int(self._fires[parent, column]),
        )


class _Sums(NamedTuple):
    """Pixels of parents, of concepts, and of both."""

    parent: Int[np.ndarray, " parent"]
    concept: Int[np.ndarray, " concept"]
    both: Int[np.ndarray, "parent concept"]

    def joined(self, operator: int, parent: Any = slice(None), column: Any = ...):
        """Returns the pixels of (parent operator concept)."""
        both = self.both[parent, column]
        own = self.parent[parent]
        own = own[:, None] if isinstance(parent, slice) else own
        if operator == AND:
            return both
        return own + self.concept[column] - both if operator == OR else own - both


class Areas:
    """Pixels of formulas together with every concept.

    Args:
      atoms: the atoms.
      pixels: int64[atom], pixels of each atom.

    Attributes:
      of_concepts: int64[concept], pixels of each concept.
      of_pairs: int64[concept, concept], pixels of two concepts.
    """

    def __init__(self, atoms: Atoms, pixels: Int[np.ndarray, " atom"]):
        self._atoms, self._pixels = atoms, pixels
        self.of_concepts = pixels @ atoms.holds
        weighted = atoms.holds.copy()
        weighted.data = np.repeat(pixels, np.diff(weighted.indptr))
        self.of_pairs = (atoms.holds.T.tocsr() @ weighted).toarray()

    def of(self, formulas: Iterable[Formula]) -> dict[Formula, np.ndarray]:
        """Returns {formula: int64[concept], its pixels with every concept}."""
        areas: dict[Formula, np.ndarray] = {}
        longer: list[Formula] = []
        for formula in formulas:
            if len(formula) == 1:
                areas[formula] = self.of_pairs[formula[0].column]
            else:
                longer.append(formula)
        for part in _parts(longer, self._atoms):
            masks = _masks(self._atoms, part)
            row, atom = np.nonzero(masks)
            inside = scipy.sparse.csr_array(
                (self._pixels[atom], (row, atom)), masks.shape
            )
            areas |= zip(part, (inside @ self._atoms.holds).toarray(), strict=True)
        return areas


class Own:
    """Pixels where some units fire.

    Args:
      atoms: the atoms.
      fires: int64 CSR [unit, atom].

    Attributes:
      common: int64[unit, concept], pixels where a unit fires on a concept.
    """

    def __init__(self, atoms: Atoms, fires: scipy.sparse.csr_array):
        self._atoms = atoms
        self.common = (fires @ atoms.holds).toarray()
        patterns = np.zeros((len(atoms.pattern), len(atoms.domains)), np.int64)
        patterns[np.arange(len(atoms.pattern)), atoms.pattern] = 1
        self._by_pattern = fires @ patterns
        self._sums: dict[frozenset, np.ndarray] = {}

    def fires(self, domains: frozenset[int]) -> Int[np.ndarray, "unit domain"]:
        """Returns where units fire in images of the given domains or of one more."""
        if domains not in self._sums:
            counted = [
                self._atoms.counted(domains | {other})
                for other in range(self._atoms.domains.shape[1])
            ]
            self._sums[domains] = self._by_pattern @ np.array(counted).T
        return self._sums[domains]

    def fires_with(
        self, unit: int, formulas: Sequence[Formula]
    ) -> Int[np.ndarray, "formula concept"]:
        """Returns where a unit fires in images that count for formula or concept."""
        return np.array(
            [
                self.fires(self._atoms.domains_of(f))[unit][self._atoms.domain]
                for f in formulas
            ]
        )


def _with_concepts(atoms, fires, parents) -> list[list[np.ndarray]]:
    """Returns, for each unit and formula, its pixels with every concept, int64."""
    units: dict[Formula, list[tuple[int, int]]] = {}
    for unit, row in enumerate(parents):
        for place, scored in enumerate(row):
            units.setdefault(scored.formula, []).append((unit, place))
    sums: list[list] = [[None] * len(row) for row in parents]
    for part in _parts(list(units), atoms):
        masks = _masks(atoms, part)
        pairs = [(number, *at) for number, f in enumerate(part) for at in units[f]]
        mask = np.array([number for number, _, _ in pairs])
        rows = fires[[unit for _, unit, _ in pairs]]
        inside = masks[np.repeat(mask, np.diff(rows.indptr)), rows.indices]
        rows.data = rows.data * inside
        rows.eliminate_zeros()
        found = (rows @ atoms.holds).toarray()
        for (_, unit, place), row in zip(pairs, found, strict=True):
            sums[unit][place] = row
    return sums


def _parts(formulas: list[Formula], atoms: Atoms) -> Iterator[list[Formula]]:
    """Yields formulas whose masks are in memory at a time."""
    size = max(1, _MASKS // max(len(atoms.pattern), 1))
    for start in range(0, len(formulas), size):
        yield formulas[start : start + size]


def _masks(atoms: Atoms, formulas: Sequence[Formula]) -> np.ndarray:
    """Returns bool[formula, atom]: where formulas hold."""
    return np.array([atoms.mask(formula) for formula in formulas])


def _best(beam: Sequence[Scored]) -> Scored:
    return beam[0] if beam else NONE


def _highest(scores: Float[np.ndarray, " candidate"], count: int) -> list[int]:
    """Returns the places of the highest scores >= 0, the first on a tie."""
    count = min(count, len(scores))
    least = -np.partition(-scores, count - 1)[count - 1] if count else 0.0
    places = np.flatnonzero(scores >= max(least, 0.0))
    order = np.argsort(-scores[places], kind="stable")[:count]
    return [int(place) for place in places[order]]
