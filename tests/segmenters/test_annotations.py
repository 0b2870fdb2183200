"""The segmenter 'annotations': its label maps and their resampling."""

import math
import types

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.data.label_maps import resample_nearest
from jdissect.data.loader import Batch
from jdissect.data.source import Annotations
from jdissect.segmenters.annotations import open_annotations

CONCEPTS = (("-", ""), ("sky", "object"), ("red", "color"))


def a_source(annotations):
    return types.SimpleNamespace(annotations=annotations)


def a_batch(labels):
    size = len(labels)
    return Batch(
        index=np.arange(size, dtype=np.int32),
        valid=np.ones(size, bool),
        pixels=np.zeros((size, 4, 4, 3), np.uint8),
        labels=labels,
        annotated=np.eye(size, 2, dtype=bool),
        skipped=(),
    )


@pytest.mark.parametrize(
    ("size", "shape"), [((112, 112), (56, 56)), ((5, 9), (7, 4)), ((3, 3), (10, 3))]
)
def test_resampling_by_the_formula(size, shape):
    labels = np.random.default_rng(0).integers(0, 99, (2, 3, *size), np.int32)
    ours = resample_nearest(labels, shape)
    assert ours.shape == (2, 3, *shape)
    assert ours.dtype == np.int32
    for y in range(shape[0]):
        for x in range(shape[1]):
            row = math.floor((y + 0.5) * size[0] / shape[0])
            column = math.floor((x + 0.5) * size[1] / shape[1])
            np.testing.assert_array_equal(ours[..., y, x], labels[..., row, column])


def test_own_grid_and_given_size():
    source = a_source(Annotations(CONCEPTS, maps=1, grid=(2, 3)))
    labels = np.arange(12, dtype=np.int32).reshape(2, 1, 2, 3)
    batch = a_batch(labels)
    segmenter = open_annotations(source)
    assert segmenter.concepts == CONCEPTS
    assert segmenter.mask_shape == (2, 3)
    np.testing.assert_array_equal(segmenter.label_maps(batch), labels)
    segmenter = open_annotations(source, mask_size=1)
    assert segmenter.mask_shape == (1, 1)
    # Row floor(0.5 * 2) = 1, column floor(0.5 * 3) = 1.
    np.testing.assert_array_equal(segmenter.label_maps(batch).ravel(), [4, 10])
    # What the image was annotated for does not depend on the resampling.
    np.testing.assert_array_equal(segmenter.annotated(batch), batch.annotated)


def test_errors():
    with pytest.raises(UserError, match="needs a source with annotations"):
        open_annotations(a_source(None))
    with pytest.raises(UserError, match="mask_size is -1"):
        open_annotations(a_source(Annotations(CONCEPTS, 1, (2, 3))), mask_size=-1)
