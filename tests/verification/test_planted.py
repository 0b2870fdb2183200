"""Units that are known to respond to a concept are verified, and no others."""

import dataclasses

import numpy as np
import pytest

from jdissect.dissection.features import Record
from jdissect.scenes import CONCEPTS, open_scenes
from jdissect.scenes.counterfactual import shows
from jdissect.verification.counterfactuals import Counterfactuals, number_of
from jdissect.verification.examples import EACH, examples
from jdissect.verification.judgement import Labels
from jdissect.verification.responses import measure
from jdissect.verification.run import rows_of_pictures, units_by_number
from jdissect.verification.verified import HELD_OUT
from tests import small_runs

PLANTED = (
    *(("person", "object"), ("tree", "object"), ("sky", "object")),
    *(("leg", "part"), ("wood", "material"), ("white", "color"), ("blue", "color")),
)
NUMBERS = [number_of(*concept) for concept in PLANTED]
ALIEN = ("unicorn", "object")
GRID = 14


def features(maps, rng):
    """Units: the share of each planted concept, and as many that see nothing."""
    shown = np.stack([shows(maps, number) for number in NUMBERS], axis=-1)
    side = maps.shape[-1] // GRID
    cells = shown.reshape(GRID, side, GRID, side, -1).mean(axis=(1, 3))
    noise = rng.normal(size=(GRID, GRID, 2 * len(NUMBERS))) * 0.3
    return noise + np.concatenate([cells, np.zeros_like(cells)], axis=-1)


@pytest.fixture(scope="module")
def judged():
    """Verified rows of the true labels, and of labels that name another concept."""
    count = len(PLANTED)
    result = small_runs.result(units=2 * count, concepts=(*PLANTED, ALIEN), images=10)
    drawn = Counterfactuals(open_scenes("probe", 100), NUMBERS, (56, 56), 12)
    rng = np.random.default_rng(0)

    def run(batches):
        for images in batches:
            maps = [features(labels, rng) for labels in images.labels()]
            values = {"layer4": np.stack(maps)}
            yield Record(images.index, images.valid, values, images.labels, None)

    every = np.arange(2 * count)
    units = dict.fromkeys(sorted(NUMBERS), every)
    found = measure(drawn, {"layer4": units}, run, 20)["layer4"]

    def verified(columns):
        labels = Labels(every, np.asarray(columns))
        return rows_of_pictures(result, labels, units, found, drawn).verified("hash")

    own = np.tile(np.arange(count), 2)
    true = verified(own)
    pairs = examples(result, true, units, found, drawn, run, 20)
    true = dataclasses.replace(true, examples=pairs)
    return true, verified((own + 3) % count), verified(own * 0 + count), drawn


def test_planted_units_rank_first(judged):
    true = judged[0]
    planted = np.arange(len(true.unit)) < len(PLANTED)
    assert true.verified[planted].all(), list(zip(true.concept, true.auc, strict=True))
    assert not true.verified[~planted].any()
    # Within each concept.
    assert (true.auc[planted] > true.auc[~planted]).all()
    assert np.median(true.auc[planted]) > 0.95
    assert abs(np.mean(true.auc[~planted]) - 0.5) < 0.08
    assert (true.margin[planted] > 0.2).all()
    assert (true.maximum[planted & (np.array(true.way) != HELD_OUT)] > 0.4).all()


def test_other_labels_score_a_half(judged):
    other = judged[1]
    assert abs(np.mean(other.auc) - 0.5) < 0.08
    assert other.verified.sum() <= 1


def test_examples_are_pairs_of_the_best_and_the_worst(judged):
    true = judged[0]
    assert [one.best for one in true.examples] == [True] * EACH + [False] * EACH
    changed = [n for n, way in enumerate(true.way) if way in ("removed", "repainted")]
    assert true.examples[0].row == changed[np.argmax(true.auc[changed])]
    assert true.examples[EACH].row == changed[np.argmin(true.auc[changed])]
    for one in true.examples[:EACH]:
        assert one.row < len(PLANTED)
        assert (one.pixels[0] != one.pixels[1]).any()
        assert one.fires[0].sum() > one.fires[1].sum()


def test_how_each_was_checked(judged):
    true = judged[0]
    ways = dict(zip(true.concept, true.way, strict=True))
    assert ways["person"] == ways["leg"] == "removed"
    assert ways["wood"] == ways["white"] == "repainted"
    assert ways["sky"] == HELD_OUT
    found = dict(zip(true.concept, true.images, strict=True))
    assert found["white"] == 12 and found["sky"] > 12
    assert (true.controls >= 10).all()


def test_a_concept_that_the_world_lacks(judged):
    alien = judged[2]
    assert set(alien.note) == {"the drawn world has no such concept"}
    assert not alien.judged.any() and set(alien.way) == {"skipped"}


def test_no_concept_of_the_world():
    result = small_runs.result(units=3, concepts=(ALIEN,), images=10)
    drawn = Counterfactuals(open_scenes("probe", 5), (), (56, 56), 10)
    found = measure(drawn, {"layer4": {}}, lambda batches: list(batches), 4)["layer4"]
    labels = Labels(np.arange(3), np.zeros(3, int))
    alien = rows_of_pictures(result, labels, {}, found, drawn).verified("hash")
    assert set(alien.way) == {"skipped"} and alien.share(0.0).judged == 0
    assert examples(result, alien, {}, found, drawn, iter, 4) == ()


def test_pictures_are_those_after_the_run(judged):
    drawn = judged[3]
    source = open_scenes("probe", 101)
    maps = source.read(100).labels[:, 1::2, 1::2]
    share = np.bincount(maps.ravel(), minlength=len(CONCEPTS)) / maps[0].size
    share[0] = 0
    np.testing.assert_array_equal(drawn.shares[0], share)
    assert len(drawn.shares) <= drawn.pictures


def test_units_by_number():
    result = small_runs.result(units=4, concepts=(*PLANTED, ALIEN))
    labels = Labels(np.arange(4), np.array([6, len(PLANTED), 0, 6]))
    found = units_by_number(result, labels)
    assert {n: u.tolist() for n, u in found.items()} == {
        NUMBERS[0]: [2],
        NUMBERS[6]: [0, 3],
    }
