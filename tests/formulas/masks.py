"""Small sets of masks with planted formulas, and slow searches on them."""

import numpy as np

from jdissect.formulas.formula import AND, NOT, OR, Step, concept

OPERATORS = (OR, AND, NOT)


class Masks:
    """Label maps, concepts as masks, and units that follow formulas.

    Attributes:
      labels: int[image, map, height, width].
      concepts: bool[concept, image, height, width].
      fires: bool[unit, image, height, width].
      annotated: bool[image, category]; categories: of each concept.
    """

    def __init__(
        self, seed, *, concepts=7, maps=2, units=4, images=12, kinds=1, annotated=1.0
    ):
        rng = np.random.default_rng(seed)
        shape = (images, maps, 6, 6)
        self.labels = rng.integers(1, concepts + 1, shape)
        self.labels[rng.random(shape) < 0.5] = 0
        self.categories = [f"kind {column % kinds}" for column in range(concepts)]
        self.annotated = rng.random((images, kinds)) < annotated
        here = self.annotated[:, np.arange(concepts) % kinds].T
        self.concepts = np.array(
            [
                (self.labels == column + 1).any(axis=1) & counts[:, None, None]
                for column, counts in enumerate(here)
            ]
        )
        pixels = (images, *shape[2:])
        self.fires = rng.random((units, *pixels)) < 0.03
        for fires in self.fires:
            a, b, c = rng.choice(concepts, 3, replace=False)
            first, second = rng.choice(3, 2)
            planted = (*concept(a), Step(first, b), Step(second, c))
            fires |= self.mask(planted) & (rng.random(pixels) < 0.7)

    def mask(self, formula):
        mask = self.concepts[formula[0].column]
        for operator, column in formula[1:]:
            other = self.concepts[column]
            mask = (mask | other, mask & other, mask & ~other)[operator]
        return mask

    def counts(self, unit, formula, images=None):
        """(intersection, union) of a unit and a formula by pixels."""
        kinds = {int(self.categories[column].split()[1]) for _, column in formula}
        counted = self.annotated[:, sorted(kinds)].any(axis=1)
        if images is not None:
            counted = counted & images
        mask = self.mask(formula)[counted]
        fires = self.fires[unit][counted]
        return int((mask & fires).sum()), int((mask | fires).sum())

    def iou(self, unit, formula, images=None):
        common, union = self.counts(unit, formula, images)
        return common / max(union, 1)

    def joined(self, formula, operators=OPERATORS):
        """The formula joined with every concept, in the published code's order."""
        return [
            (*formula, Step(operator, column))
            for column in range(len(self.concepts))
            for operator in operators
        ]

    def beam(self, unit, length, beam, penalty=1.0):
        """The best of the beam by length, as vision/dissection/neuron.py goes on."""
        leaves = [concept(column) for column in range(len(self.concepts))]
        scored = {(n, f): self.iou(unit, f) for n, f in enumerate(leaves)}
        kept = [item for item in scored.items() if item[1] > 0]
        kept = sorted(kept, key=lambda item: -item[1])[:beam]
        best = [kept[0][0][1]] if kept else [()]
        for depth in range(1, length):
            new = [
                ((depth, f), penalty ** (len(f) - 1) * self.iou(unit, f))
                for (_, parent), _ in kept
                for f in self.joined(parent)
            ]
            # Equal formulas are different objects there, so none replaces another.
            kept = sorted(kept + new, key=lambda item: -item[1])[:beam]
            best.append(kept[0][0][1] if kept else ())
        return best

    def best(self, unit, length, operators=OPERATORS):
        """The highest IoU of all formulas of up to 1, 2, ... concepts."""
        formulas = [concept(column) for column in range(len(self.concepts))]
        highest, found = 0.0, []
        for _ in range(length):
            highest = max([highest, *(self.iou(unit, f) for f in formulas)])
            found.append(highest)
            formulas = [
                joined
                for f in formulas
                for joined in self.joined(f, operators)
                if joined[-1].column not in [step.column for step in f]
            ]
        return found
