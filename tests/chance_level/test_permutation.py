"""Counts under permutations equal a brute force over dense masks."""

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.chance_level import permutation
from jdissect.chance_level.packed import pack
from tests.chance_level import drawn


def packed_of(found, order=None):
    images = list(found.images())
    return pack(images, drawn.UNITS, drawn.CONCEPTS)


@pytest.mark.parametrize("all_annotated", [True, False])
@pytest.mark.parametrize("words", [1, 40, 2**17])
def test_null_is_that_of_dense_masks(all_annotated, words, monkeypatch):
    monkeypatch.setattr(permutation, "_WORDS", words)
    found = drawn.dense(1, all_annotated=all_annotated)
    null = permutation.null(packed_of(found), drawn.CATEGORY, 6, seed=3)
    for number in range(6):
        order = permutation.draw(len(found.masks), 3, number)
        expected = drawn.iou(found, order)
        np.testing.assert_array_equal(null.iou[number], expected.max(axis=1))
        fires = expected.max(axis=1) > 0
        np.testing.assert_array_equal(
            null.concept[number], np.where(fires, expected.argmax(axis=1), -1)
        )
    assert null.iou.std(axis=0)[:-1].min() > 0 and (null.concept[:, -1] == -1).all()


def test_identity_gives_the_counts_themselves():
    found = drawn.dense(2)
    counter = permutation.Counter(packed_of(found), drawn.CATEGORY)
    best = counter.best(np.arange(len(found.masks)))
    expected = drawn.iou(found, np.arange(len(found.masks)))
    np.testing.assert_array_equal(best.iou, expected.max(axis=1))


def test_the_order_of_pairs_does_not_matter():
    found = drawn.dense(4)
    rng = np.random.default_rng(0)
    mixed = []
    for image in found.images():
        order = rng.permutation(len(image.unit))
        mixed.append(image._replace(unit=image.unit[order], pixel=image.pixel[order]))
    first = permutation.null(packed_of(found), drawn.CATEGORY, 3, 0)
    second = permutation.null(
        pack(mixed, drawn.UNITS, drawn.CONCEPTS), drawn.CATEGORY, 3, 0
    )
    np.testing.assert_array_equal(first.iou, second.iou)


def test_permutations_are_uniform_and_stay_the_same():
    assert permutation.draw(8, 0, 0).tolist() == permutation.draw(8, 0, 0).tolist()
    several = np.array([permutation.draw(4, 5, number) for number in range(2400)])
    assert (np.sort(several, axis=1) == np.arange(4)).all()
    _, counts = np.unique(several, axis=0, return_counts=True)
    # 24 permutations with 100 each: chi squared with 23 degrees of freedom.
    assert len(counts) == 24 and ((counts - 100) ** 2 / 100).sum() < 50


def test_permutations_are_pinned():
    assert permutation.draw(6, 0, 0).tolist() == [0, 2, 1, 5, 4, 3]
    assert permutation.draw(6, 7, 3).tolist() == [2, 5, 3, 0, 4, 1]


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images(images):
    found = drawn.dense(1, images=2)
    with pytest.raises(UserError, match=f"^{images} images? cannot be permuted"):
        pack(list(found.images())[:images], drawn.UNITS, drawn.CONCEPTS)
