"""The engine, against brute force, and its bits on different devices."""

import dataclasses
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.dissection import engine, passes
from jdissect.dissection.engine import Dissection, Settings
from jdissect.dissection.features import Features, Images, Shapes
from jdissect.results import group_counts
from jdissect.runtime.devices import Devices
from tests.ops import reference

CONCEPTS = [
    ("-", "-"),
    ("cat", "object"),
    ("-", "part"),
    ("red", "color"),
    ("tail", "part"),
]
SHAPE = (12, 10)


def make(count=45, units=7, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(count, 6, 5, units)).astype(np.float32)
    labels = rng.integers(0, 5, (count, 2, *SHAPE))
    annotated = rng.random((count, 3)) < 0.8
    valid = np.ones(count, bool)
    valid[[3, 20]] = False
    return pixels, labels, annotated, valid


def reader(data, batch, calls=None):
    """A `read` for the engine."""
    pixels, labels, annotated, valid = data

    def read(indices=None, start=0, stop=None):
        if calls is not None:
            calls.append(indices)
        wanted = np.arange(len(pixels))[start:stop]
        if indices is not None:
            wanted = np.asarray(indices)
        for start in range(0, len(wanted), batch):
            index = wanted[start : start + batch]
            missing = batch - len(index)

            def pad(array, value=0, missing=missing):
                widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
                return np.pad(array, widths, constant_values=value)

            yield Images(
                index=pad(index, -1),
                valid=pad(valid[index]),
                pixels=pad(pixels[index]),
                labels=pad(labels[index]),
                annotated=pad(annotated[index]),
            )

    return read


def two_layers(scale, pixels):
    return {"fine": pixels * scale, "coarse": pixels[:, ::2, ::2] * scale}


def run(data, batch=8, calls=None, blocks=None, **changes):
    settings = Settings(layers=("fine", "coarse"), quantile=0.05, **changes)
    engine = Dissection(two_layers, np.float32(2), CONCEPTS, settings, Devices())
    return engine.run(reader(data, batch, calls), len(data[0]), blocks)


def arrays(result):
    found = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            found[field.name] = value
        elif dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{n}": a for n, a in arrays(value).items()}
    return found


def assert_same(first, second):
    for layer in first:
        for name, array in arrays(first[layer]).items():
            np.testing.assert_array_equal(array, arrays(second[layer])[name], name)


@pytest.fixture(scope="module")
def plain():
    """What is found in `make()`; no test changes it."""
    return run(make())


def test_shapes_are_known_before_the_network_runs(monkeypatch):
    data, calls = make(), []
    layers = ("fine", "coarse")
    arguments = (two_layers, np.float32(2), layers, Devices(), reader(data, 8, calls))
    features = Features(*arguments, "memory")
    monkeypatch.setattr(features, "_forward", None)  # running it would be an error
    grids = {"fine": (6, 5), "coarse": (3, 3)}
    assert features.units == {"fine": 7, "coarse": 7} and features.mask_shape == SHAPE
    for layer, (height, width) in grids.items():
        plan = features.geometry[layer]
        assert (plan.rows.size, plan.columns.size) == (height, width)
    assert len(calls) == 1
    given = Shapes.of({"fine": np.zeros((1, 6, 5, 7))}, SHAPE)
    features = Features(*arguments, "memory", shapes=given)
    assert features.units == {"fine": 7} and len(calls) == 1  # no batch was read


def test_batches_that_are_unlike_are_refused():
    """Another mask grid, or feature maps of another size, in a later batch."""
    data = make()

    def shrunk(name):
        for number, images in enumerate(reader(data, 8)()):
            if number == 2:
                array = getattr(images, name)
                array = array[:, :, :6] if name == "labels" else array[:, :4]
                images = dataclasses.replace(images, **{name: array})
            yield images

    settings = Settings(("fine",), 0.05)
    for name, message in (
        ("labels", "label maps of a batch are 6x10, but those before are 12x10"),
        ("pixels", r"maps .* \[4, 5, 7\] in a batch, but \[6, 5, 7\] before"),
    ):
        engine = Dissection(two_layers, np.float32(2), CONCEPTS, settings, Devices())
        with pytest.raises(UserError, match=message):
            engine.run(lambda *_, name=name: shrunk(name), len(data[0]))


def test_a_unit_that_is_always_negative_fires_on_the_border():
    """Zeros are around a map that is upsampled; there it is greatest."""
    pixels, labels, annotated, valid = make()
    pixels = -1 - np.abs(pixels)
    found = run((pixels, labels, annotated, valid))["fine"]
    masks = reference.upsample(2 * pixels[valid], SHAPE) > found.thresholds
    np.testing.assert_array_equal(found.fires, masks.sum(axis=(0, 1, 2)))
    assert (found.fires > 0).all()
    border = masks.copy()
    border[:, 1:-1, 1:-1] = False
    np.testing.assert_array_equal(masks, border)


def test_a_concept_is_the_union_of_its_numbers():
    """A pixel with two of them, in two maps, is counted once."""
    pixels, labels, annotated, valid = make()
    concepts = [
        ("tail", "part"),  # number 0 is nothing, whatever its name
        ("cat", "object"),
        ("tail", "part"),
        ("cat", "object"),
        ("cat", "part"),
    ]
    engine = Dissection(
        two_layers, np.float32(2), concepts, Settings(("fine",), 0.05), Devices()
    )
    two = annotated[:, :2]
    found = engine.run(reader((pixels, labels, two, valid), 8), len(pixels))["fine"]
    assert list(zip(found.concepts, found.categories, strict=True)) == [
        ("cat", "object"),
        ("tail", "part"),
        ("cat", "part"),
    ]
    up = reference.upsample(2 * pixels[valid], SHAPE)
    masks = up > found.thresholds
    both_numbers = (labels[:, 0] == 1) & (labels[:, 1] == 3)
    assert both_numbers.any()
    for column, (numbers, category) in enumerate([((1, 3), 0), ((2,), 1), ((4,), 1)]):
        counts = two[valid][:, category][:, None, None, None]
        there = np.isin(labels[valid], numbers).any(axis=1)[..., None] & counts
        fires = masks & counts
        np.testing.assert_array_equal(
            found.intersection[:, column], (fires & there).sum(axis=(0, 1, 2))
        )
        np.testing.assert_array_equal(
            found.union[:, column], (fires | there).sum(axis=(0, 1, 2))
        )


def test_against_brute_force(plain):
    pixels, labels, annotated, valid = make()
    for layer, maps in two_layers(np.float32(2), pixels).items():
        maps = maps[valid]
        up = reference.upsample(maps, SHAPE)
        thresholds = reference.thresholds(up.reshape(-1, 7), 0.05)
        result = plain[layer]
        np.testing.assert_array_equal(result.thresholds, thresholds)
        masks = up > thresholds
        np.testing.assert_array_equal(result.fires, masks.sum(axis=(0, 1, 2)))
        # Columns: cat (object), red (color), tail (part); number 2 is '-'.
        assert result.concepts == ("cat", "red", "tail")
        assert result.categories == ("object", "color", "part")
        for column, number in enumerate((1, 3, 4)):
            counts = annotated[valid][:, column][:, None, None, None]
            there = (labels[valid] == number).any(axis=1)[..., None] & counts
            fires = masks & counts
            both = (fires & there).sum(axis=(0, 1, 2))
            either = (fires | there).sum(axis=(0, 1, 2))
            np.testing.assert_array_equal(result.intersection[:, column], both)
            np.testing.assert_array_equal(result.union[:, column], either)
            each = (fires & there).sum(axis=(1, 2)), (fires | there).sum(axis=(1, 2))
            check_by_image(result, column, each, valid)
        peaks = np.where(
            valid[:, None], two_layers(2, pixels)[layer].max(axis=(1, 2)), -9
        )
        order = np.argsort(-peaks, axis=0, kind="stable")[:5].T
        np.testing.assert_array_equal(result.top_image, order)
        # What each unit sees on its top images is what was counted.
        assert result.mask_shape == SHAPE and result.top_map.shape[:2] == (7, 5)
        place = np.flatnonzero(valid)
        for unit, rank in np.ndindex(7, 5):
            shown = reference.upsample(
                result.top_map[unit, rank][None, ..., None], SHAPE
            )
            image = np.searchsorted(place, result.top_image[unit, rank])
            np.testing.assert_array_equal(
                shown[0, ..., 0] > thresholds[unit], masks[image, ..., unit]
            )
        assert result.histogram_counts.sum(axis=1).tolist() == [up[..., 0].size] * 7
        assert result.images == 43
        counted = annotated[valid].sum(axis=0).tolist()
        names = ("object", "color", "part")
        assert result.category_images == dict(zip(names, counted, strict=True))


def check_by_image(result, column, each, valid):
    """The counts by image and by block; `each` has those of the valid images."""
    units, columns = np.arange(7), np.full(7, column)
    common = result.by_image.intersection_of(units, columns)
    union = result.by_image.union_of(units, columns, common)
    for found, want in zip((common, union), each, strict=True):
        np.testing.assert_array_equal(found[:, valid], want.T)
        assert not found[:, ~valid].any()
    block = np.array([zlib.crc32(str(n).encode()) % 32 for n in range(len(valid))])
    summed = np.zeros((7, 32), int)
    np.add.at(summed.T, block, common.T)
    np.testing.assert_array_equal(result.blocks.intersection_of(units, columns), summed)


def test_many_images_are_counted_by_block_only(monkeypatch):
    data = make()
    names = [f"a/{number}.jpg" for number in range(45)]
    blocks = group_counts.blocks_of(names)
    by_image = run(data, blocks=blocks)
    monkeypatch.setattr(group_counts, "BY_IMAGE_ENTRIES", 45 * 3 * 14 - 1)
    found = run(data, blocks=blocks)
    for layer, result in found.items():
        assert result.by_image is None and by_image[layer].by_image is not None
        expected = arrays(by_image[layer])
        for name, array in arrays(result).items():
            np.testing.assert_array_equal(array, expected[name], name)


def test_features_kept_or_not_do_not_matter(plain, tmp_path):
    data = make()
    calls = []
    assert_same(plain, run(data, keep="none", calls=calls))
    assert len([c for c in calls if c is None]) >= 3  # the network ran again
    assert_same(plain, run(data, keep="disk", folder=tmp_path / "new"))
    assert not list((tmp_path / "new").iterdir())  # the file has no name


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, 45])
def test_batch_size_does_not_matter(plain, batch):
    assert_same(plain, run(make(), batch=batch))


@pytest.mark.parametrize(
    "keep",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "none")],
)
def test_sweeps_for_a_few_units_of_many(keep):
    """Where most thresholds are known from the sketch, the others are picked out."""
    data = make(count=24, units=300)
    data[0][..., 10:] = 1.5
    found = run(data, keep=keep)
    maps = 2 * data[0][data[3]]
    expected = reference.thresholds(
        reference.upsample(maps, SHAPE).reshape(-1, 300), 0.05
    )
    np.testing.assert_array_equal(found["fine"].thresholds, expected)


@pytest.mark.parametrize(
    "layer", ["fine", pytest.param("coarse", marks=pytest.mark.slow)]
)
def test_layers_at_once_or_one_by_one(plain, layer):
    data = make()
    settings = Settings(layers=(layer,), quantile=0.05)
    engine = Dissection(two_layers, np.float32(2), CONCEPTS, settings, Devices())
    alone = engine.run(reader(data, 8), len(data[0]))
    assert_same(alone, {layer: plain[layer]})


def test_counters_are_emptied_in_time(plain, monkeypatch):
    """With room for three batches of a device's counters, nothing changes."""
    data = make()
    monkeypatch.setattr(passes, "COUNTER_LIMIT", 3 * 8 * SHAPE[0] * SHAPE[1])
    read_out = []
    per_device = passes.per_device

    def spy(state, *which):
        read_out.append(state)
        return per_device(state, *which)

    monkeypatch.setattr(passes, "per_device", spy)
    assert_same(plain, run(data))
    assert len(read_out) >= 6  # more often than once a pass


def test_intersections_of_some_units_after_others(plain, monkeypatch):
    """With room for five of the 14 units: three passes, one across both layers."""
    data = make()
    monkeypatch.setattr(engine, "MOST_COUNTERS", 5 * len(data[0]) * 4)
    names, count = [], passes.count
    monkeypatch.setattr(passes, "count", lambda *a: names.append(a[0]) or count(*a))
    assert_same(plain, run(data))
    assert names[-3:] == [f"intersections {n} of 3" for n in (1, 2, 3)]
    monkeypatch.setattr(group_counts, "BY_IMAGE_ENTRIES", 0)
    monkeypatch.setattr(engine, "MOST_COUNTERS", 5 * 32 * 4)
    by_block = run(data)
    for layer, result in by_block.items():
        assert result.by_image is None
        for name, array in arrays(result).items():
            np.testing.assert_array_equal(array, arrays(plain[layer])[name], name)


@pytest.mark.slow
def test_counts_beyond_32_bits():
    """2,300 million pixels of one unit on one concept: more than an int32 holds."""
    count, side = 140, 4096
    assert count * side**2 > 2**31
    labels = np.ones((1, 1, side, side), np.int8)

    def read(indices=None, start=0, stop=None):
        wanted = range(count) if indices is None else indices
        for index in wanted:
            yield Images(
                index=np.array([index]),
                valid=np.ones(1, bool),
                pixels=np.full((1, 1, 1, 1), index % 2, np.float32),
                labels=labels,
            )

    engine = Dissection(
        lambda _, pixels: {"x": pixels},
        None,
        [("-", "-"), ("all", "object")],
        Settings(layers=("x",), quantile=0.6),
        Devices(),
    )
    result = engine.run(read, count)["x"]
    assert result.thresholds.tolist() == [0]
    assert result.fires.tolist() == [count // 2 * side**2]
    assert result.intersection.tolist() == [[count // 2 * side**2]]
    assert result.union.tolist() == [[count * side**2]]
    assert result.histogram_counts.sum() == count * side**2


def test_not_a_number_stops_with_layer_and_unit():
    data = make()
    data[0][9, 0, 0, 4] = np.nan
    with pytest.raises(UserError, match=r"layer 'coarse', unit 4.*NaN or infinite"):
        run(data)
    data = make()
    data[0][3, 0, 0, 4] = np.nan  # an image that does not count
    run(data)


def test_unknown_layer_and_no_image():
    data = make()
    settings = Settings(layers=("fin",), quantile=0.05)
    engine = Dissection(two_layers, np.float32(2), CONCEPTS, settings, Devices())
    with pytest.raises(
        UserError, match="no layer 'fin'; there are: coarse, fine|fine, c"
    ):
        engine.run(reader(data, 8), len(data[0]))
    data[3][:] = False
    with pytest.raises(UserError, match="none of the images could be read"):
        run(data)


PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import numpy as np
from tests.dissection import test_engine as t
t.Devices = lambda: t_devices(sys.argv[2])
from jdissect.runtime.devices import Devices as t_devices
assert len(jax.devices()) == int(sys.argv[1])
found = t.run(t.make(), batch=8 * len(jax.devices()), unit_parts=int(sys.argv[4]))
found = {f"{l}/{n}": a for l in found for n, a in t.arrays(found[l]).items()}
np.savez(sys.argv[3], **found)
"""


@pytest.mark.parametrize(
    "devices, mode, unit_parts",
    [
        pytest.param(4, "shard_map", 1, marks=pytest.mark.slow),
        (4, "shard_map", 2),  # of seven units
        pytest.param(4, "pmap", 2, marks=pytest.mark.slow),
    ],
)
def test_same_bits_on_any_devices(devices, mode, unit_parts, plain, tmp_path):
    out = tmp_path / "found.npz"
    arguments = [str(devices), mode, str(out), str(unit_parts)]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        for layer, result in plain.items():
            for name, array in arrays(result).items():
                np.testing.assert_array_equal(found[f"{layer}/{name}"], array)
    assert len(jax.devices()) == 1
