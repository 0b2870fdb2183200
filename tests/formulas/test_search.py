"""Searches find what slow searches on dense masks find."""

import dataclasses

import numpy as np
import pytest

from jdissect.analysis import uncertainty
from jdissect.base.errors import UserError
from jdissect.formulas import search
from jdissect.formulas.beam import Beam, Rules
from jdissect.formulas.formula import AND, NOT, OR, canonical
from jdissect.formulas.given import of_masks
from jdissect.formulas.optimum import Optimum
from jdissect.formulas.stored import Settings
from jdissect.results.group_counts import blocks_of
from tests.formulas.masks import Masks

# A segmenter's maps; one category with images that do not count; three of them.
KINDS = (
    {"maps": 1},
    {"maps": 2},
    {"maps": 3, "annotated": 0.6},
    {"maps": 2, "kinds": 3, "annotated": 0.6},
)
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)


def counted(masks):
    return of_masks(masks.fires, masks.labels, masks.categories, masks.annotated)


@kinds
@pytest.mark.parametrize(
    "rules",
    [Rules(), Rules(length=4, beam=2), Rules(beam=3, penalty=0.9), Rules(length=1)],
    ids=["default", "longer", "penalty", "concepts"],
)
def test_the_beam_is_that_of_the_published_code(kind, rules):
    masks = Masks(0, **kind)
    counts = counted(masks)
    for unit, found in enumerate(Beam(counts.atoms, counts.of(), rules).search()):
        best = masks.beam(unit, rules.length, rules.beam, rules.penalty)
        assert [scored.formula for scored in found.best] == best
        for scored in found.best:
            assert (scored.intersection, scored.union) == masks.counts(
                unit, scored.formula
            )


@kinds
@pytest.mark.parametrize("seed", range(2))
def test_the_optimum_is_that_of_all_formulas(kind, seed):
    masks = Masks(seed, **kind)
    counts, rules = counted(masks), Rules(beam=1)
    beams = Beam(counts.atoms, counts.of(), rules).search()
    found = Optimum(counts.atoms, counts.of(), rules).search(beams)
    for unit, each in enumerate(found):
        np.testing.assert_array_equal(
            [scored.iou for scored in each.best], masks.best(unit, 3)
        )
        for scored in each.best:
            assert (scored.intersection, scored.union) == masks.counts(
                unit, scored.formula
            )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_where_few_concepts_meet(seed):
    masks = Masks(seed, concepts=11, maps=2, images=4, units=2)
    counts, rules = counted(masks), Rules(beam=1)
    beams = Beam(counts.atoms, counts.of(), rules).search()
    found = Optimum(counts.atoms, counts.of(), rules).search(beams)
    for unit, each in enumerate(found):
        np.testing.assert_array_equal(
            [scored.iou for scored in each.best], masks.best(unit, 3)
        )


@pytest.mark.parametrize("operators", [(OR,), (AND, NOT), (OR, NOT)])
def test_operators(operators):
    masks = Masks(1, maps=3)
    counts, rules = counted(masks), Rules(operators=operators)
    beams = Beam(counts.atoms, counts.of(), rules).search()
    found = Optimum(counts.atoms, counts.of(), rules).search(beams)
    for unit, (beam, each) in enumerate(zip(beams, found, strict=True)):
        assert each.best[-1].iou == masks.best(unit, 3, operators)[-1]
        for scored in (beam.best[-1], each.best[-1]):
            assert {step.operator for step in scored.formula[1:]} <= set(operators)


def test_the_first_comes_first_on_a_tie():
    masks = Masks(0, maps=1, units=2)
    masks.fires[0] = masks.concepts[2] | masks.concepts[4]
    masks.fires[1] = False  # has no concept
    counts = counted(masks)
    beams = Beam(counts.atoms, counts.of(), Rules()).search()
    assert canonical(beams[0].best[1].formula) == (OR, (2, 4), ())
    assert beams[0].best[2] == beams[0].best[1]  # no longer one is better
    assert beams[1].best[2].formula == () and beams[1].best[2].iou == 0.0
    found = Optimum(counts.atoms, counts.of(), Rules()).search(beams)
    assert [each.best for each in found] == [each.best for each in beams]


def test_formulas_that_differ_in_order_once():
    """The rules of the package compositional_explanations."""
    masks = Masks(3, maps=2)
    counts = counted(masks)
    rules = Rules(beam=2, first=4, distinct=True)
    for unit, found in enumerate(Beam(counts.atoms, counts.of(), rules).search()):
        leaves = sorted(
            ((masks.iou(unit, f), f) for f in _leaves(masks)), key=lambda s: -s[0]
        )[:4]
        kept = [scored for scored in leaves if scored[0] > 0]
        for length in (2, 3):
            new = {
                canonical(f): (masks.iou(unit, f), f)
                for _, parent in kept
                if len(parent) == length - 1
                for f in masks.joined(parent)
                if f[-1].column not in [step.column for step in parent]
            }
            kept = sorted([*kept, *new.values()], key=lambda s: -s[0])[:2]
        assert found.best[-1].iou == kept[0][0]


def _leaves(masks):
    return [parent[:1] for parent in masks.joined(()) if parent[0].operator == OR]


def test_cross_fitting_and_intervals():
    masks = Masks(2, images=64, maps=2)
    counts, settings = counted(masks), Settings(length=2)
    names = [f"c{column}" for column in range(len(masks.concepts))]
    found = search.explain(counts, settings, names, masks.categories)
    blocks = blocks_of([str(image) for image in range(64)])
    filled = np.unique(blocks)
    weights, halves = uncertainty.draws(len(filled))
    half = np.isin(blocks, filled[halves[0] > 0])
    for unit in range(len(masks.fires)):
        crossed = []
        for chosen_on, judged_on in ((half, ~half), (~half, half)):
            part = Masks(2, images=64, maps=2)
            part.annotated = part.annotated & chosen_on[:, None]
            part.concepts = part.concepts & chosen_on[:, None, None]
            formula = part.beam(unit, 2, 5)[-1]
            crossed.append(masks.iou(unit, formula, judged_on))
        assert found.cross_fitted[unit] == pytest.approx(np.mean(crossed), abs=1e-12)
    beams = Beam(counts.atoms, counts.of(), Rules(length=2)).search()
    formula = beams[0].best[-1].formula
    by_block = np.array(
        [masks.counts(0, formula, blocks == block) for block in filled], float
    )
    resampled = (weights @ by_block[:, 0]) / (weights @ by_block[:, 1])
    spread = resampled[1:].std()
    assert found.low[0] < found.iou[0] - 1.9 * spread < found.iou[0]
    assert found.iou[0] == resampled[0]
    assert found.high[0] == pytest.approx(2 * found.iou[0] - found.low[0])


def test_noise_gains_by_length_what_cross_fitting_takes_back():
    masks = Masks(4, images=64, maps=3, concepts=12, units=8)
    masks.fires = np.random.default_rng(0).random(masks.fires.shape) < 0.05
    names = list("abcdefghijkl")
    found = search.explain(counted(masks), Settings(), names, masks.categories)
    gain = np.array(found.mean_iou) - found.mean_cross_fitted
    assert (np.diff(found.mean_iou) > 0).all() and (np.diff(gain) > 0).all()


@pytest.mark.parametrize(
    "change, line",
    [
        ({"length": 0}, "length is 0"),
        ({"length": 17}, "length is 17"),
        ({"length": 4, "method": "optimum"}, "up to 3 concepts"),
        ({"method": "best"}, "method is 'best'"),
        ({"beam": 0}, "beam is 0"),
        ({"penalty": 0.0}, "penalty is 0"),
        ({"penalty": float("nan")}, "penalty is nan"),
        ({"operators": ("xor",)}, "operators has 'xor'"),
        ({"operators": ()}, "operators has ''"),
        ({"beam": 10**12}, "GiB"),
    ],
    ids=str,
)
def test_refusals(change, line):
    settings = dataclasses.replace(Settings(), **change)
    with pytest.raises(UserError) as raised:
        search.check_memory(settings, 1800)
    assert line in str(raised.value) and "\n" not in str(raised.value)
