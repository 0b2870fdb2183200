import jax
import numpy as np
import pytest

from jdissect.ops import bit_masks, float_keys, iou, mask_overlap
from jdissect.results import group_counts
from tests.ops import reference


def brute_force(masks, labels, annotated, category):
    """Pixel by pixel: (intersection, union), [unit, concept]."""
    intersection, union = [], []
    for concept, its_category in enumerate(category):
        counts = annotated[:, its_category][:, None, None]
        there = (labels == concept + 1).any(axis=1) & counts
        fires = masks & counts[..., None]
        intersection.append((fires & there[..., None]).sum(axis=(0, 1, 2)))
        union.append((fires | there[..., None]).sum(axis=(0, 1, 2)))
    return np.stack(intersection, axis=1), np.stack(union, axis=1)


@pytest.mark.parametrize("shape, maps, concepts", [((14, 10), 1, 3), ((56, 56), 6, 90)])
def test_against_brute_force(shape, maps, concepts):
    rng = np.random.default_rng(0)
    images, units = 6, 20
    features = rng.normal(size=(images, 4, 4, units)).astype(np.float32)
    # Few regions an image, numbers repeat across the maps of a pixel.
    small = rng.integers(0, concepts + 1, (images, maps, 7, 5))
    labels = small.repeat(-(-shape[0] // 7), axis=2).repeat(-(-shape[1] // 5), axis=3)
    labels = labels[:, :, : shape[0], : shape[1]].astype(np.int32)
    labels[:, -1] = labels[:, 0]
    category = rng.integers(0, 3, concepts).astype(np.int32)
    annotated = rng.random((images, 3)) < 0.7
    valid = np.array([True] * 5 + [False])
    thresholds = np.quantile(features, 0.8, axis=(0, 1, 2)).astype(np.float32)
    geometry = bit_masks.plan((4, 4), shape)
    step = jax.jit(
        lambda counts, *rest: iou.update(counts, *rest[:-1], geometry, rest[-1])
    )
    cuts = float_keys.cuts(float_keys.to_keys_host(thresholds))
    group = np.array([1, 0, 1, 1, 0, 2], np.int32)
    counts = iou.empty(3, concepts, 3, units)
    for some in (slice(0, 4), slice(4, 6)):
        pad = 4 - len(features[some])

        def fill(array, some=some, pad=pad):
            return np.pad(array[some], [(0, pad)] + [(0, 0)] * (array.ndim - 1))

        counts = step(
            counts,
            fill(features),
            fill(valid),
            fill(labels),
            fill(annotated),
            fill(group),
            cuts,
            category,
            np.int32(0),
        )
    intersection, union, fires = iou.result(counts, category)
    masks = reference.upsample(features, shape) > thresholds
    want = brute_force(masks[:5], labels[:5], annotated[:5], category)
    np.testing.assert_array_equal(intersection, want[0])
    np.testing.assert_array_equal(union, want[1])
    np.testing.assert_array_equal(fires, masks[:5].sum(axis=(0, 1, 2)))
    assert intersection.dtype == union.dtype == np.int64
    packed = group_counts.Groups(3, group).packed(jax.device_get(counts), category)[0]
    unit, column = (index.ravel() for index in np.indices(intersection.shape))
    for number in range(3):
        here = np.flatnonzero(group[:5] == number)
        want = brute_force(masks[here], labels[here], annotated[here], category)
        common = packed.intersection_of(unit, column)
        np.testing.assert_array_equal(common[:, number], want[0].ravel())
        union = packed.union_of(unit, column, common)
        np.testing.assert_array_equal(union[:, number], want[1].ravel())


@pytest.mark.parametrize("share", [1, 0.1, 0])
def test_common_bits_in_several_groups(share):
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 2**32, (5, 300), dtype=np.uint32)
    planes[rng.random(planes.shape) >= share] = 0
    planes[3] = 0
    masks = rng.integers(0, 2**32, (300, 260), dtype=np.uint32)
    found = np.asarray(jax.jit(mask_overlap.product)(planes, masks))
    both = planes[:, :, None] & masks
    np.testing.assert_array_equal(found, np.bitwise_count(both).sum(axis=1))


def test_units_of_several_devices_are_joined():
    """Fewer units than concepts, and a share that is padded with one more."""
    rng = np.random.default_rng(0)
    groups, concepts, categories, units = 2, 9, 3, 5
    whole = iou.Counts(
        rng.integers(0, 99, (groups, concepts + 1, units)),
        rng.integers(0, 99, (groups, concepts + 1)),
        rng.integers(0, 99, (groups, categories + 1, units)),
    )

    def share(first, last):
        def some(array):
            missing = last - min(last, units)
            rows = [(0, 0)] * (array.ndim - 1)
            return np.pad(array[..., first:last], [*rows, (0, missing)])

        return iou.Counts(some(whole.intersection), whole.concept, some(whole.unit))

    joined = iou.join([share(0, 3), share(3, 6)], units)
    for found, expected in zip(joined, whole, strict=True):
        np.testing.assert_array_equal(found, expected)
