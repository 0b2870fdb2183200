"""The kernels for accelerators, interpreted, against those for CPUs and brute force."""

import functools

import jax
import numpy as np
import pytest

from benchmarks.support.streams import streams
from jdissect.ops import bit_masks, float_keys, iou, refine, sketch
from jdissect.ops.accelerated import count_above, intersections, pixels
from jdissect.ops.accelerated import sketch as accelerated_sketch
from jdissect.ops.accelerated import sweep as accelerated_sweep
from jdissect.ops.accelerated.target import Target
from tests.ops import reference
from tests.ops.test_thresholds import place

ZERO = np.int32(0)
SLOW = pytest.mark.slow
GRIDS = [
    pytest.param((7, 7), (56, 56), marks=SLOW),
    ((7, 5), (20, 33)),  # cells of different numbers of pixels
    pytest.param((1, 6), (13, 6), marks=SLOW),  # constant, and its own grid
    pytest.param((9, 4), (5, 4), marks=SLOW),  # fewer pixels than points
]
interpreted = pytest.mark.parametrize(
    "target", [Target("gpu", True), Target("tpu", True)], ids=lambda t: t.platform
)


def drawn(grid, images, units, seed=0):
    """Maps with zeros, and with numbers that count as zero."""
    maps = np.random.default_rng(seed).normal(size=(images, *grid, units))
    maps = np.where(maps < -1, 0, maps).astype(np.float32)
    maps[0, 0, 0, :2] = -1e-40, -0.0
    return maps


@pytest.mark.parametrize(
    "grid, shape",
    [
        *[((7, 7), (56, 56)), ((7, 5), (20, 33)), ((1, 6), (13, 6)), ((9, 4), (5, 4))],
        *[((12, 12), (6, 6)), ((5, 9), (3, 4))],
    ],
)
def test_pixels_without_gathers(grid, shape):
    geometry, maps = bit_masks.plan(grid, shape), drawn(grid, 2, 3)
    maps = float_keys.canonical_host(maps)
    found = np.asarray(
        jax.jit(lambda maps, zero: pixels.upsampled(maps, geometry, zero))(maps, ZERO)
    )
    number = np.arange(1, 1 + geometry.pixels, dtype=np.int32).reshape(shape)
    number = pixels.placed(number, -1, pixels.layout(geometry.columns))
    number = np.asarray(pixels.placed(number, -2, pixels.layout(geometry.rows)))
    assert sorted(number[number > 0]) == list(range(1, 1 + geometry.pixels))
    expected = reference.upsample(maps, shape).reshape(2, -1, 3)
    found = np.broadcast_to(found, (2, *number.shape, 3))
    np.testing.assert_array_equal(
        found[:, number > 0], expected[:, number[number > 0] - 1]
    )


@interpreted
@pytest.mark.parametrize("grid, shape", GRIDS)
@pytest.mark.parametrize("most_bytes", [2**22, 2**14])
def test_pixels_above_cuts(monkeypatch, target, grid, shape, most_bytes):
    """In one block, and in several of rows; more cuts than are counted at once."""
    if most_bytes < 2**22 and grid[0] < 7:
        pytest.skip("one block")
    limits = {"gpu": most_bytes, "tpu": most_bytes}
    monkeypatch.setattr(count_above, "_MOST_BYTES", limits)
    monkeypatch.setattr(count_above, "_CUTS", {"gpu": 4, "tpu": 3})
    geometry, maps = bit_masks.plan(grid, shape), drawn(grid, 9, 130)
    cuts = np.random.default_rng(1).normal(size=(5, 130)).astype(np.float32)
    cuts[0] = 0
    cuts = float_keys.cuts(float_keys.to_keys_host(cuts))
    found = jax.jit(
        lambda maps, cuts, zero: count_above.count_above(
            maps, cuts, geometry, zero, target
        )
    )(maps, cuts, ZERO)
    values = reference.upsample(float_keys.canonical_host(maps), shape)
    np.testing.assert_array_equal(
        found, (values > cuts[:, None, None, None]).sum(axis=(2, 3))
    )


@interpreted
def test_sketch_and_sweeps_on_hard_streams(target):
    """The sketch of CPUs to the bit; thresholds as a sort finds them."""
    found = streams(2**15)
    maps = np.stack([v.reshape(32, 32, 32) for v in found.values()], axis=-1)
    units, count = len(found), 2**15
    geometry = bit_masks.plan((32, 32), (32, 32))
    coded, placed = place(maps, geometry)
    valid = np.arange(len(maps)) != 5
    args = (sketch.empty(units), maps, valid)
    known = jax.jit(functools.partial(sketch.update, geometry=geometry))(
        *args, codes=coded, zero=ZERO
    )
    run = functools.partial(accelerated_sketch.update, geometry=geometry, target=target)
    state = jax.jit(run)(*args, cuts=float_keys.cuts(placed), zero=ZERO)
    for one, other in zip(known, state, strict=True):
        np.testing.assert_array_equal(one, other)
    count -= 32 * 32
    state = jax.tree.map(np.asarray, state)
    bracket = sketch.certify(state, placed, count, 0.01).bracket
    run = functools.partial(accelerated_sweep.update, geometry=geometry, target=target)
    step = jax.jit(run)
    for _ in range(12):
        if (bracket.high - bracket.low <= 1).all():
            break
        counts = step(
            refine.empty(units, 8),
            maps,
            valid,
            accelerated_sweep.as_arguments(bracket, 8),
            zero=ZERO,
        )
        counts = np.asarray(counts, np.int64)
        allowed = sketch.allowance(count, 0.01)
        bracket, wrong = refine.narrow(bracket, counts, allowed)
        assert not wrong.any()
    expected = reference.thresholds(maps[valid].reshape(-1, units), 0.01)
    np.testing.assert_array_equal(float_keys.from_keys_host(bracket.high), expected)


@interpreted
def test_a_sweep_counts_slots_as_on_a_cpu(target):
    """From a bracket of all keys, of some, and of none."""
    geometry, maps = bit_masks.plan((3, 4), (9, 9)), drawn((3, 4), 3, 4)
    valid = np.array([True, False, True])
    one = int(float_keys.to_keys_host(np.ones(1, np.float32))[0])
    most = float_keys.KEY_OF_LARGEST
    bracket = sketch.Bracket(
        low=np.int64([-most, 0, one - 2**20, one]),
        high=np.int64([most, most, one + 2**22 + 7, one + 1]),
        above_low=np.full(4, 162),
        above_high=np.zeros(4, np.int64),
    )
    run = functools.partial(refine.update, geometry=geometry)
    fine = jax.jit(run)(
        refine.empty(4), maps, valid, refine.as_arguments(bracket), zero=ZERO
    )
    run = functools.partial(accelerated_sweep.update, geometry=geometry, target=target)
    coarse = jax.jit(run)(
        refine.empty(4, 8),
        maps,
        valid,
        accelerated_sweep.as_arguments(bracket, 8),
        zero=ZERO,
    )
    # Slots are halves of halves, so each of the few is a sum of the many.
    np.testing.assert_array_equal(coarse, np.asarray(fine).reshape(4, 8, -1).sum(-1))
    assert np.asarray(coarse)[:3].any(axis=1).all() and not np.asarray(coarse)[3].any()


@interpreted
@pytest.mark.parametrize("grid, shape", GRIDS)
def test_intersections(monkeypatch, target, grid, shape):
    """Two steps, with groups, annotations, padding, and labels that say nothing."""
    monkeypatch.setattr(intersections, "_MOST_BYTES", 2**18)  # of several parts
    rng = np.random.default_rng(2)
    images, units, concepts, groups = 3, 130, 70, 4
    geometry, maps = bit_masks.plan(grid, shape), drawn(grid, images, units)
    category = rng.integers(0, 3, concepts).astype(np.int32)
    column_of = np.zeros(concepts + 5, np.int32)
    numbers = 1 + rng.permutation(concepts + 4)[:concepts]
    column_of[numbers] = np.arange(1, concepts + 1)
    labels = rng.integers(0, concepts + 5, (images, 2, *shape))
    labels[:, :, ::2] = numbers[0]  # in two maps of a pixel
    valid, annotated = np.array([True, False, True]), rng.random((images, 3)) < 0.7
    cuts = rng.normal(size=units).astype(np.float32)
    group = np.array([2, 0, 2], np.int32)
    step = jax.jit(functools.partial(iou.update, geometry=geometry))
    known = iou.empty(groups, concepts, 3, units)
    for _ in range(2):
        known = step(
            known,
            maps,
            valid,
            column_of[labels],
            annotated,
            group,
            cuts,
            category,
            zero=ZERO,
        )
    prepared, present = intersections.prepare(
        labels, valid, annotated, column_of, category
    )
    assert prepared.dtype == np.int16 and present.shape[1] % 64 == 0
    assert (present[1] == -1).all() and not prepared[1].any()
    step = jax.jit(
        functools.partial(intersections.update, geometry=geometry, target=target)
    )
    found = intersections.empty(groups, concepts, 3, units)
    for _ in range(2):
        found = step(
            found, maps, valid, prepared, present, annotated, group, cuts, zero=ZERO
        )
    found = intersections.finish(found, units)
    for one, other in zip(known, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.intersection.any() and found.concept.any() and found.unit.any()
