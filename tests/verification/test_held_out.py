"""Labels of photographs, judged by the half of the images that did not choose them."""

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.dissection.features import Record
from jdissect.results import group_counts
from jdissect.verification import held_out
from jdissect.verification.judgement import FEWEST, Labels, Shown, contrast
from jdissect.verification.verified import HELD_OUT
from tests import small_runs

IMAGES, CONCEPTS = 240, 4
CATEGORIES = ("object",) * CONCEPTS


@pytest.fixture
def shown():
    rng = np.random.default_rng(0)
    there = rng.random((IMAGES, CONCEPTS)) < 0.4
    return Shown(there, ~there, np.array([0.1, 0.2, 0.11, 0.4]), CATEGORIES)


def test_contrast_against_masks(shown):
    rng = np.random.default_rng(1)
    maximum = rng.normal(size=(IMAGES, 2)) + shown.there[:, [0]] * [2.0, 0.0]
    found = contrast(maximum, shown, 0)
    a, b = maximum[shown.there[:, 0]], maximum[~shown.there[:, 0]]
    np.testing.assert_allclose(
        found.auc.value, (a[:, None] > b[None]).mean(axis=(0, 1))
    )
    assert found.images == len(a) and found.auc.value[0] > 0.85
    # The concept nearest in size is number 2.
    lack = ~shown.there[:, 0]
    c = maximum[lack & shown.there[:, 2]]
    d = maximum[lack & ~shown.there[:, 2]]
    np.testing.assert_allclose(
        found.control.value, (c[:, None] > d[None]).mean(axis=(0, 1))
    )
    assert found.controls == len(c)


def test_too_few_images(shown):
    few = np.zeros(IMAGES, bool)
    few[np.flatnonzero(shown.there[:, 0])[: FEWEST - 1]] = True
    few[np.flatnonzero(~shown.there[:, 0])] = True
    found = contrast(np.zeros((IMAGES, 1)), shown, 0, few)
    assert found.auc is None and found.why_not == f"{FEWEST - 1} images with it"


def test_halves_choose_by_their_own_counts():
    result = small_runs.result(images=64)
    blocks = group_counts.blocks_of([str(n) for n in range(64)])
    counted = np.arange(64) != 5
    chosen, images = held_out.halves(result, blocks, counted)
    assert (
        not (images[0] & images[1]).any() and (images[0] | images[1] == counted).all()
    )
    units, columns = np.indices(result.intersection.shape).reshape(2, -1)
    flat = result.by_image.intersection_of(units, columns)
    union = result.by_image.union_of(units, columns, flat)
    for half in range(2):
        # Images that were not counted have no counts in a real run.
        here = np.isin(blocks, np.unique(blocks[images[half]]))
        iou = flat[:, here].sum(axis=1) / np.maximum(union[:, here].sum(axis=1), 1)
        iou = iou.reshape(result.intersection.shape)
        np.testing.assert_array_equal(chosen[half], iou.argmax(axis=1))
    with pytest.raises(UserError, match="counts by block of images were not kept"):
        held_out.halves(result.replace(blocks=None, by_image=None), blocks, counted)


def test_what_images_show():
    concepts = (("-", ""), ("a", "object"), ("b", "object"), ("c", "color"))
    labels = np.zeros((3, 2, 10, 10), np.int64)
    labels[0, 0, :5], labels[0, 1, 0, 0] = 1, 3  # 0.5 of a, 0.01 of c
    labels[1, 0] = 2
    features = np.arange(3 * 4 * 3, dtype=np.float32).reshape(3, 2, 2, 3)
    record = Record(
        np.array([2, 0, -1]),
        np.array([True, True, False]),
        {"x": features},
        lambda: labels,
        np.array([[True, True], [True, False], [True, True]]),
    )
    maxima, shown = held_out.look([record], {"x": np.array([1])}, concepts, 3)
    assert maxima["x"].ravel().tolist() == [22, 0, 10]
    assert shown.there.tolist() == [
        [False, True, False],
        [False, False, False],
        [True, False, True],
    ]
    # Image 0 has no colors, so their absence says nothing.
    assert shown.absent.tolist() == [
        [True, False, False],
        [False, False, False],
        [False, True, False],
    ]
    np.testing.assert_allclose(shown.size, [0.5, 1.0, 0.01])
    assert shown.categories == ["object", "object", "color"]


def test_planted_units_are_verified_and_others_not(shown):
    """Units 0 to 2 respond to their concepts, units 3 to 5 to none."""
    rng = np.random.default_rng(3)
    concepts = tuple((f"thing {n}", "object") for n in range(CONCEPTS))
    result = small_runs.result(units=6, concepts=concepts)
    maximum = rng.normal(size=(IMAGES, 6))
    maximum[:, :3] += 2 * shown.there[:, :3]
    labels = Labels(np.arange(6), np.array([0, 1, 2, 0, 1, 2]))
    chosen = np.stack([labels.column, labels.column])
    chosen[1, 5], chosen[0, 4] = 3, -1
    images = np.stack([np.arange(IMAGES) % 2 == n for n in (0, 1)])
    found = held_out.judge(result, labels, maximum, shown, chosen, images)
    found = found.verified("hash")
    assert found.verified.tolist() == [True] * 3 + [False] * 3
    assert set(found.way) == {HELD_OUT}
    halves = []
    for half in range(2):
        have = shown.there[:, 0] & images[half]
        lack = ~shown.there[:, 0] & images[half]
        halves.append((maximum[have, 0][:, None] > maximum[lack, 0]).mean())
    assert found.auc[0] == pytest.approx(np.mean(halves))
    assert found.images[0] == shown.there[:, 0].sum()
    # A unit that one half cannot judge has the other's numbers.
    assert found.images[4] == (shown.there[:, 1] & images[0]).sum()
    assert found.note[5] == "chosen by half of the images: thing 3"
    assert np.isnan(found.shift).all()
