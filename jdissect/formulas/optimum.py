"""Finds the best of all formulas of up to three concepts, without trying all of them.

For a formula f let I be the pixels where it holds and the unit fires, E those where it
holds and the unit does not, and F those where the unit fires. Its IoU, I / (F + E),
exceeds the best one so far, J / V, exactly if

    s(f) = V I - J E  >  J F.

s is a sum over pixels, positive where the unit fires and negative elsewhere, so it
follows from the sums of the concepts' intersections: s(a OR b) = s(a) + s(b) - s(ab),
and a formula of three concepts needs s of a, b, c, ab, ac, bc and abc. Few sets of two
concepts ever meet at a pixel, and few of three (a pixel has one label per map). So all
formulas of three concepts that meet are computed. For others s(abc) is 0, and the
formula follows from two concepts and the third: those pairs are kept whose upper bound
over all third concepts exceeds J F, and only they are joined with every concept. The
bounds use P and N, the positive and the negative part of s over a set of pixels:

    s(c without p) <= min(P(c), s(c) + N(p)).

Whatever is better raises J / V, and the search is repeated, until nothing is better
(Dinkelbach 1967). All numbers are integers, so the result is exact.

The same optimum as La Rosa et al. 2026 (package compositional_explanations) find.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Int

from jdissect.base.errors import UserError
from jdissect.formulas.atoms import Atoms
from jdissect.formulas.beam import Found, Own, Rules, Scored
from jdissect.formulas.formula import AND, NOT, OR, Formula, Step, concept

LONGEST = 3
_MOST_MEETINGS = 2**26  # entries of the tables of concepts that meet
_CHUNK = 2**21  # values of formulas at a time
_PAIR_BYTES = 2**27  # for the sums of the units that are read at once

# How s of a formula of concepts a, b, c follows from s of a, b, c, ab, ac, bc, abc.
_KINDS: dict[tuple[int, int], tuple[int, ...]] = {
    (OR, OR): (1, 1, 1, -1, -1, -1, 1),
    (AND, OR): (0, 0, 1, 1, 0, 0, -1),
    (NOT, OR): (1, 0, 1, -1, -1, 0, 1),
    (OR, AND): (0, 0, 0, 0, 1, 1, -1),
    (OR, NOT): (1, 1, 0, -1, -1, -1, 1),
    (AND, AND): (0, 0, 0, 0, 0, 0, 1),
    (AND, NOT): (0, 0, 0, 1, 0, 0, -1),
    (NOT, NOT): (1, 0, 0, -1, -1, 0, 1),
}
_PAIRS = ((0, 1), (0, 2), (1, 2))


class _Role(NamedTuple):
    """A kind of formula with its concepts in some order.

    Attributes:
      operators: the two operators.
      order: place, in an ascending triple, of the formula's first, second, third.
      factors: as in `_KINDS`, of the triple's a, b, c, ab, ac, bc, abc.
    """

    operators: tuple[int, int]
    order: tuple[int, ...]
    factors: tuple[int, ...]


def _roles(operators: Sequence[int]) -> list[_Role]:
    """Returns the different formulas of three concepts, in any order."""
    found: dict[tuple[int, ...], _Role] = {}
    for kind, factors in _KINDS.items():
        if not set(kind) <= set(operators):
            continue
        for order in itertools.permutations(range(3)):
            turned = [0] * 7
            for place, factor in zip(order, factors[:3], strict=True):
                turned[place] = factor
            for pair, factor in zip(_PAIRS, factors[3:6], strict=True):
                meeting = tuple(sorted(order[place] for place in pair))
                turned[3 + _PAIRS.index(meeting)] = factor
            turned[6] = factors[6]
            found.setdefault(tuple(turned), _Role(kind, order, tuple(turned)))
    return list(found.values())


class _Tables(NamedTuple):
    """Sums over pixels by concept, by two that meet, and by three that meet."""

    one: Int[np.ndarray, " concept"]
    two: Int[np.ndarray, " pair"]
    three: Int[np.ndarray, " triple"]


class Optimum:
    """Searches the best formula of units on the same pixels.

    Args:
      atoms: the atoms.
      counts: int64 CSR [unit + 1, atom], see `Counts.of`.
      rules: how to search; `beam` is not used, nor is `first`.

    Raises:
      UserError: more than three concepts, or more that meet than fit into memory.
    """

    def __init__(self, atoms: Atoms, counts: scipy.sparse.csr_array, rules: Rules):
        if rules.length > LONGEST:
            raise UserError(
                f"length is {rules.length}; the optimum is found for up to {LONGEST} "
                "concepts, --method=beam finds longer formulas"
            )
        self._atoms, self._rules = atoms, rules
        self._concepts = atoms.holds.shape[1]
        self._fires = counts[:-1]
        self._pixels = counts[[-1]].toarray()[0]
        self._pairs, self._of_pair = self._meetings(2)
        self._triples, self._of_triple = self._meetings(3 if rules.length > 2 else 0)
        self._pair = np.array(np.divmod(self._pairs, self._concepts))
        rest, third = np.divmod(self._triples, self._concepts)
        self._triple = np.array([*np.divmod(rest, self._concepts), third])
        self._roles = _roles(rules.operators)
        self._areas = self._summed(self._pixels)
        # Where the pairs of a triple are among the pairs.
        self._pairs_of_triple = np.array(
            [
                np.searchsorted(
                    self._pairs, self._triple[i] * self._concepts + self._triple[j]
                )
                for i, j in _PAIRS
            ]
        )

    def search(self, found: Sequence[Found]) -> list[Found]:
        """Returns the best formulas of every unit.

        Args:
          found: what a beam search found, for a start; the optimum keeps its formulas
            where none is better.
        """
        size = max(1, _PAIR_BYTES // (8 * max(len(self._pairs), len(self._triples), 1)))
        result = []
        for start in range(0, len(found), size):
            fires = self._fires[start : start + size]
            own = Own(self._atoms, fires)
            two = (fires @ self._of_pair).toarray()
            three = (fires @ self._of_triple).toarray()
            for unit, before in enumerate(found[start : start + size]):
                tables = _Tables(own.common[unit], two[unit], three[unit])
                search = _Unit(self, tables, fires[[unit]].toarray()[0], own, unit)
                result.append(search.run(before))
        return result

    def _meetings(self, size: int):
        """Returns the sets of concepts that meet, as numbers, and their atoms."""
        holds, rows, keys = self._atoms.holds, [], []
        counts = np.diff(holds.indptr)
        entries = 0
        for count in np.unique(counts):
            if size < 2 or count < size:
                continue
            atoms = np.flatnonzero(counts == count)
            at = holds.indptr[atoms][:, None] + np.arange(count)
            labels = np.sort(holds.indices[at], axis=1).astype(np.int64)
            for places in itertools.combinations(range(int(count)), size):
                entries += len(atoms)
                if entries > _MOST_MEETINGS:
                    raise UserError(
                        "too many concepts meet at a pixel for the optimum; use "
                        "--method=beam"
                    )
                key: np.ndarray = np.zeros(len(atoms), np.int64)
                for place in places:
                    key = key * self._concepts + labels[:, place]
                rows.append(atoms)
                keys.append(key)
        if not rows:
            shape = (holds.shape[0], 0)
            return np.zeros(0, np.int64), scipy.sparse.csr_array(shape, dtype=np.int64)
        distinct, of_row = np.unique(np.concatenate(keys), return_inverse=True)
        row = np.concatenate(rows)
        incidence = scipy.sparse.csr_array(
            (np.ones(len(row), np.int64), (row, of_row.reshape(-1))),
            (holds.shape[0], len(distinct)),
        )
        return distinct, incidence

    def _summed(self, by_atom: Int[np.ndarray, " atom"]) -> _Tables:
        """Returns the sums of values by atom."""
        incidences = self._atoms.holds, self._of_pair, self._of_triple
        return _Tables(*(by_atom @ incidence for incidence in incidences))

    def _meet(self, columns: Int[np.ndarray, "three formula"]) -> np.ndarray:
        """Returns whether the three concepts meet at any pixel."""
        a, b, c = np.sort(columns, axis=0)
        return _at(self._triples, (a * self._concepts + b) * self._concepts + c)[1]


class _Unit:
    """The search for one unit."""

    def __init__(self, search: Optimum, common: _Tables, fires, own: Own, unit: int):
        self._of, self._common, self._fires = search, common, fires
        atoms = search._atoms
        self._area = search._areas
        self._extra = _Tables(
            *(area - own for area, own in zip(self._area, common, strict=True))
        )
        self._domain = atoms.domain
        domains = range(atoms.domains.shape[1])
        # F of formulas of any three domains.
        self._fired = np.array(
            [[own.fires(frozenset((i, j)))[unit] for j in domains] for i in domains]
        )
        self._visited = 0

    def run(self, before: Found) -> Found:
        best = [before.best[0]]
        for length in range(2, self._of._rules.length + 1):
            start = max(best[-1], before.best[length - 1], key=lambda s: s.iou)
            best.append(self._raised(start, length))
        penalty = self._of._rules.penalty

        def value(scored):
            return penalty ** max(len(scored.formula) - 1, 0) * scored.iou

        chosen = [best[0]]
        for scored in best[1:]:
            chosen.append(scored if value(scored) > value(chosen[-1]) else chosen[-1])
        return Found(tuple(chosen), before.visited + self._visited)

    def _raised(self, best: Scored, length: int) -> Scored:
        """Returns the best formula of up to `length` concepts."""
        if not best.formula:  # the unit overlaps no concept
            return best
        while True:
            found = self._better(best, length)
            if not found:
                return best
            best = max(found, key=lambda s: (s.iou, -len(s.formula)))

    def _better(self, best: Scored, length: int) -> list[Scored]:
        """Returns formulas of `length` concepts that are better than `best`, if any."""
        self._j, self._v = best.intersection, best.union
        one, two, three = (
            self._v * common - self._j * extra
            for common, extra in zip(self._common, self._extra, strict=True)
        )
        concepts, (first, second) = len(one), self._of._pair
        self._meeting = np.zeros((concepts, concepts), np.int64)
        self._meeting[first, second] = self._meeting[second, first] = two
        self._one = one
        if length == 2:
            return self._of_two(two)
        found = self._of_three_that_meet(one, two, three)
        # A better formula is enough for a start; the others take longer to find.
        return found or self._of_three_apart(two)

    def _needed(self, *columns):
        """Returns J F, what s must exceed."""
        if self._fired.size == 1:
            return self._j * self._fired[0, 0]
        domains = [self._domain[column] for column in columns]
        if len(domains) == 2:
            domains = [domains[0], *domains]
        return self._j * self._fired[tuple(domains)]

    def _of_two(self, two) -> list[Scored]:
        operators = self._of._rules.operators
        one, meeting = self._one, self._meeting
        first, second = self._of._pair
        found = []
        if OR in operators:
            # A concept that the unit never meets adds nothing.
            of = np.flatnonzero(self._common.one)
            value = one[of][:, None] + one[of] - meeting[np.ix_(of, of)]
            self._visited += len(of) * (len(of) - 1) // 2
            a, b = _upper(value > self._needed(of[:, None], of[None]), of)
            found += self._pairs_of(OR, a, b)
        if AND in operators:
            self._visited += len(two)
            here = two > self._needed(first, second)
            found += self._pairs_of(AND, first[here], second[here])
        if NOT in operators:
            for a, b in ((first, second), (second, first)):
                self._visited += len(two)
                here = one[a] - two > self._needed(a, b)
                found += self._pairs_of(NOT, a[here], b[here])
        return found

    def _pairs_of(self, operator, a, b) -> list[Scored]:
        if not len(a):
            return []
        factors = {OR: (1, 1, -1), AND: (0, 0, 1), NOT: (1, 0, -1)}[operator]
        counts = [
            factors[0] * table.one[a]
            + factors[1] * table.one[b]
            + factors[2] * self._two(table, a, b)
            for table in (self._common, self._area)
        ]
        fires = self._fired[self._domain[a], self._domain[a], self._domain[b]]
        return _best_of(
            counts, fires, lambda n: (*concept(int(a[n])), Step(operator, int(b[n])))
        )

    def _of_three_that_meet(self, one, two, three) -> list[Scored]:
        triple, pairs = self._of._triple, self._of._pairs_of_triple
        values = [*(one[column] for column in triple), *(two[p] for p in pairs), three]
        needed = self._needed(*triple)
        found = []
        for role in self._of._roles:
            value = _combined(role.factors, values)
            self._visited += len(three)
            here = np.flatnonzero(value > needed)
            if len(here):
                columns = triple[list(role.order)][:, here]
                found += self._triples_of(role.operators, columns)
        return found

    def _of_three_apart(self, two) -> list[Scored]:
        """Looks at three concepts that never meet all three at a pixel."""
        one, meeting = self._one, self._meeting
        first, second = self._of._pair
        both = np.concatenate([first, second]), np.concatenate([second, first])
        together = np.concatenate([two, two])
        value = self._v * self._fires - self._j * (self._of._pixels - self._fires)
        positive = self._of._summed(np.maximum(value, 0))
        negative = positive.one - one
        meeting_n = np.zeros(meeting.shape, np.int64)
        meeting_n[both] = np.tile(positive.two - two, 2)
        gain = _Gain(positive.one, one, negative)
        # Most that can be gained by taking a third concept away from each.
        away = np.maximum(0, -meeting.min(axis=1, initial=0))
        without = one[both[0]] - together
        pair_needed = self._needed(*both)
        found = []
        # OR does not gain from a concept without a positive part.
        of = np.flatnonzero(positive.one)
        needed = self._needed(of[:, None], of[None])
        joined = one[of][:, None] + one[of] - meeting[np.ix_(of, of)]
        n = negative[of][:, None] + negative[of] - meeting_n[np.ix_(of, of)]
        found += self._third((OR, OR), _upper(joined + gain(n) > needed, of))
        # Without a third concept, at most P of a OR b is left.
        bound = np.minimum(joined + away[of][:, None] + away[of], joined + n)
        found += self._third((OR, NOT), _upper(bound > needed, of))
        here = (two > 0) & (two + one.max(initial=0) > self._needed(first, second))
        found += self._third((AND, OR), (first[here], second[here]))
        here = together < 0
        bound = without + gain(negative[both[0]] - meeting_n[both])
        found += self._third(
            (NOT, OR), tuple(s[here & (bound > pair_needed)] for s in both)
        )
        here &= without + away[both[0]] > pair_needed
        found += self._third((NOT, NOT), tuple(side[here] for side in both))
        highest = meeting.max(axis=1, initial=0)
        here = (together > 0) & (together + highest[both[1]] > pair_needed)
        # The third concept of (a OR b) AND c is b here.
        found += self._third((OR, AND), tuple(side[here] for side in both))
        return found

    def _third(self, kind, pairs) -> list[Scored]:
        """Joins pairs with every third concept; returns what is better than the best.

        Args:
          kind: the operators of (a, b, c).
          pairs: columns (a, b) each, or (a, c) for (a OR b) AND c.
        """
        if not set(kind) <= set(self._of._rules.operators) or not len(pairs[0]):
            return []
        one, meeting, found = self._one, self._meeting, []
        concepts = len(one)
        size = max(1, _CHUNK // concepts)
        for start in range(0, len(pairs[0]), size):
            a, b = (side[start : start + size] for side in pairs)
            pair = meeting[a, b]
            value = np.zeros((len(a), concepts), np.int64)
            if kind == (OR, AND):
                value += pair[:, None] + meeting[b]
            else:
                if kind[0] == AND:
                    base = pair
                else:
                    base = one[a] + (one[b] if kind[0] == OR else 0) - pair
                    value -= meeting[a]
                if kind[0] == OR:
                    value -= meeting[b]
                value += base[:, None]
                if kind[1] == OR:
                    value += one
            self._visited += value.size
            needed = np.broadcast_to(self._needed(a, b), len(a))
            row, third = np.nonzero(value > needed[:, None])
            columns = np.array([a[row], b[row], third])
            if kind == (OR, AND):
                columns = columns[[0, 2, 1]]
            columns = columns[:, (third != a[row]) & (third != b[row])]
            columns = columns[:, ~self._of._meet(columns)]
            found += self._triples_of(kind, columns)
        return found

    def _triples_of(self, kind, columns) -> list[Scored]:
        """Returns the best of formulas of three concepts, with their counts."""
        if not columns.shape[1]:
            return []
        factors = _KINDS[kind]
        counts = []
        for table in (self._common, self._area):
            values = [*(table.one[column] for column in columns)]
            values += [self._two(table, columns[i], columns[j]) for i, j in _PAIRS]
            values.append(self._three(table, columns))
            counts.append(_combined(factors, values))
        fires = self._fired[tuple(self._domain[column] for column in columns)]

        def formula(n):
            a, b, c = (int(column) for column in columns[:, n])
            return (*concept(a), Step(kind[0], b), Step(kind[1], c))

        found = _best_of(counts, fires, formula)
        return [s for s in found if s.intersection * self._v > self._j * s.union]

    def _two(self, table: _Tables, a, b):
        key = np.minimum(a, b) * self._of._concepts + np.maximum(a, b)
        place, there = _at(self._of._pairs, key)
        return np.where(there, table.two[place] if len(table.two) else 0, 0)

    def _three(self, table: _Tables, columns):
        a, b, c = np.sort(columns, axis=0)
        key = (a * self._of._concepts + b) * self._of._concepts + c
        place, there = _at(self._of._triples, key)
        return np.where(there, table.three[place] if len(table.three) else 0, 0)


class _Gain:
    """Bounds what a third concept c adds to p: max over c of min(P(c), s(c) + N(p))."""

    def __init__(self, positive, value, negative):
        order = np.argsort(negative)
        self._negative = negative[order]
        least = np.full(1, np.iinfo(np.int64).min // 4)
        self._most = np.maximum.accumulate(np.concatenate([least, positive[order]]))
        high = np.concatenate([value[order], least])
        self._value = np.maximum.accumulate(high[::-1])[::-1]

    def __call__(self, negative):
        # For N(c) <= N(p), P(c) = s(c) + N(c) is the smaller one.
        place = np.searchsorted(self._negative, negative, side="right")
        return np.maximum(self._most[place], self._value[place] + negative)


def _upper(mask, columns) -> tuple[np.ndarray, np.ndarray]:
    """Returns the columns (a, b) with a before b where a mask of both is true."""
    a, b = np.nonzero(np.triu(mask, 1))
    return columns[a], columns[b]


def _combined(factors, values):
    """Returns the sum of values times factors of 0, 1 and -1."""
    total = np.zeros_like(values[0])
    for factor, value in zip(factors, values, strict=True):
        if factor:
            total = total + value if factor > 0 else total - value
    return total


def _at(ordered, keys) -> tuple[np.ndarray, np.ndarray]:
    """Returns (places of keys in an ascending array, whether they are there)."""
    if not len(ordered):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return place, ordered[place] == keys


def _best_of(counts, fires, formula) -> list[Scored]:
    """Returns the formula of highest IoU, the first on a tie."""
    intersection, area = counts
    iou = intersection / np.maximum(fires + area - intersection, 1)
    best = int(iou.argmax())
    made: Formula = formula(best)
    return [Scored(made, int(intersection[best]), int(area[best]), int(fires[best]))]
