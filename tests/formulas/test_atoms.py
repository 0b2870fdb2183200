"""Counts by atom are those of pixels."""

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.formulas import atoms
from jdissect.formulas.formula import concept
from jdissect.formulas.given import of_masks
from jdissect.results.group_counts import blocks_of
from tests.formulas.masks import Masks


def test_pixels_by_atom_and_block(monkeypatch):
    monkeypatch.setattr(atoms, "_PENDING", 50)  # merged often
    masks = Masks(0, maps=3, kinds=2, annotated=0.7)
    counts = of_masks(masks.fires, masks.labels, masks.categories, masks.annotated)
    blocks = blocks_of([str(image) for image in range(12)])
    here = masks.concepts.reshape(7, -1).T  # [pixel, concept]
    counted = np.repeat(masks.annotated, 36, axis=0)
    distinct = np.unique(np.hstack([here, counted]), axis=0)
    assert counts.atoms.holds.shape[0] == len(distinct)
    for column in range(7):
        mask = counts.atoms.mask(concept(column))
        for block in range(32):
            images = blocks == block
            here = masks.concepts[column, images]
            assert counts.by_block(4, mask)[block] == here.sum()
            both = masks.concepts[column] & masks.fires[1]
            assert counts.by_block(1, mask)[block] == both[images].sum()
    assert (counts.filled == np.isin(np.arange(32), blocks)).all()
    some = counts.filled & (np.arange(32) % 2 == 0)
    chosen = np.isin(blocks, np.flatnonzero(some))
    by_unit = counts.of(some).sum(axis=1)
    np.testing.assert_array_equal(
        by_unit, [*masks.fires[:, chosen].sum(axis=(1, 2, 3)), chosen.sum() * 36]
    )


def test_a_concept_in_two_maps_counts_once():
    labels = np.array([[[[1, 2]], [[1, 1]]], [[[1, 1]], [[2, 1]]]])
    counts = of_masks(np.ones((1, 2, 1, 2), bool), labels, ["kind", "kind"])
    held = counts.atoms.holds.toarray()
    assert sorted(map(tuple, held)) == [(1, 0), (1, 1)]
    np.testing.assert_array_equal(counts.of().toarray()[0] @ held, [4, 2])


def test_more_than_memory():
    masks = Masks(0)
    image = atoms.Counter(masks.categories, 4, most_bytes=12)
    with pytest.raises(UserError, match="take fewer images"):
        of_one(image, masks)


def of_one(counter, masks):
    from jdissect.dissection.firing import OnImage

    unit, pixel = np.nonzero(masks.fires[:, 0].reshape(4, -1))
    counter.add(OnImage(0, masks.labels[0], np.ones(1, bool), unit, pixel), 0)
    counter.counts()


@pytest.mark.parametrize(
    "fires, labels, line",
    [
        (np.ones((1, 2, 3, 3), bool), np.ones((2, 1, 3, 4), int), "here"),
        (np.ones((1, 2, 3, 3), bool), np.full((2, 1, 3, 3), 3), "numbers 3 to 3"),
        (np.ones((1, 2, 3, 3), bool), np.full((2, 1, 3, 3), -1), "numbers -1 to -1"),
    ],
)
def test_masks_that_do_not_fit(fires, labels, line):
    with pytest.raises(UserError, match=line):
        of_masks(fires, labels, ["kind", "kind"])
