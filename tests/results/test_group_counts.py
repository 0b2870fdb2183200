"""Counts by group: the small form holds the same numbers."""

import dataclasses

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.results import group_counts


@pytest.fixture
def dense():
    """(intersection [group, concept, unit], concept, unit, category), mostly zeros."""
    rng = np.random.default_rng(0)
    groups, concepts, units = 5, 300, 120
    intersection = rng.integers(0, 400, (groups, concepts, units))
    intersection *= rng.random((groups, concepts, 1)) < 0.02
    intersection[2] = 0  # over 65,535 entries without a count
    intersection[1, -1, -1] = 2**40
    concept = intersection.max(axis=2) + 7
    unit = rng.integers(0, 2**20, (groups, 3, units))
    return intersection, concept, unit, rng.integers(0, 2, concepts).astype(np.int32)


def everything(counts):
    _, concepts, units = counts.shape
    column, unit = (index.ravel() for index in np.indices((concepts, units)))
    common = counts.intersection_of(unit, column)
    union = counts.union_of(unit, column, common)
    shape = (concepts, units, counts.groups)
    return common.reshape(shape), union.reshape(shape)


def check(counts, dense):
    intersection, concept, unit, category = dense
    common, union = everything(counts)
    np.testing.assert_array_equal(common, np.moveaxis(intersection, 0, -1))
    want = unit[:, category] + concept[..., None] - intersection
    np.testing.assert_array_equal(union, np.moveaxis(want, 0, -1))
    np.testing.assert_array_equal(counts.intersection(), intersection.sum(axis=0).T)


def test_the_same_numbers(dense, tmp_path):
    counts = group_counts.GroupedCounts.pack(*dense)
    check(counts, dense)
    counts.save(tmp_path / "blocks.npz")
    check(group_counts.load(tmp_path / "blocks.npz", 120, 300), dense)
    assert counts.gap.nbytes + counts.low.nbytes < dense[0].nbytes / 50


def test_fewer_groups_and_concepts(dense):
    intersection, concept, unit, category = dense
    counts = group_counts.GroupedCounts.pack(*dense)
    of = np.array([0, 3, 3, 0, 1])
    summed = [np.zeros((4, *array.shape[1:]), int) for array in dense[:3]]
    for number, group in enumerate(of):
        for total, array in zip(summed, dense, strict=False):
            total[group] += array[number]
    check(counts.merged(of, 4), (*summed, category))
    columns = np.array([299, 5, 17])
    picked = intersection[:, columns], concept[:, columns], unit, category[columns]
    check(counts.picked(columns), picked)


def test_counts_of_some_units_each_are_joined(dense):
    intersection, concept, unit, category = dense
    whole = group_counts.GroupedCounts.pack(*dense)
    parts = [
        group_counts.GroupedCounts.pack(
            intersection[..., some], concept, unit[..., some], category
        )
        for some in (slice(0, 50), slice(50, 51), slice(51, 120))
    ]
    joined = group_counts.GroupedCounts.joined(parts)
    for field in dataclasses.fields(whole):
        found, expected = getattr(joined, field.name), getattr(whole, field.name)
        np.testing.assert_array_equal(found, expected, field.name)
        assert found.dtype == expected.dtype


def test_nothing_at_all():
    dense = np.zeros((3, 4, 5), int), np.zeros((3, 4), int), np.zeros((3, 1, 5), int)
    counts = group_counts.GroupedCounts.pack(*dense, np.zeros(4, np.int32))
    check(counts, (*dense, np.zeros(4, np.int32)))


def test_small_sets_by_image():
    few = group_counts.Groups.choose(10, 1000, None)
    assert few.count == 10 and list(few.of) == list(range(10))
    assert list(few.blocks) == [group_counts.block(str(n)) for n in range(10)]
    many = group_counts.Groups.choose(10, 2**25, np.arange(10, dtype=np.int32))
    assert many.count == 32 and many.blocks is None


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("low", np.zeros(3, np.uint8), "'low' has shape"),
        ("concept", np.zeros((5, 2), np.uint8), "'concept' has shape"),
        ("unit", np.zeros((4, 3, 120), np.uint8), "'unit' has shape"),
        ("category", np.full(300, 9, np.uint8), "'category' reaches 9"),
        ("large", np.full(1, 2**60, np.uint64), "'l"),
        ("high", np.zeros(2, np.float32), "'high' does not hold"),
        ("gap", None, "gap"),
    ],
)
def test_a_damaged_file_is_refused(dense, tmp_path, name, value, message):
    path = tmp_path / "blocks.npz"
    group_counts.GroupedCounts.pack(*dense).save(path)
    arrays = dict(np.load(path))
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    if name == "large":
        arrays["high"] = np.ones(1, np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="blocks.npz") as error:
        group_counts.load(path, 120, 300)
    assert message in str(error.value)


def test_gaps_that_lead_too_far_are_refused(dense, tmp_path):
    path = tmp_path / "blocks.npz"
    group_counts.GroupedCounts.pack(*dense).save(path)
    arrays = dict(np.load(path))
    arrays["gap"] = np.full(len(arrays["gap"]), 65535, np.uint16)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="'gap' reaches"):
        group_counts.load(path, 120, 300)
