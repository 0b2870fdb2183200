"""Networks as segmenters: what their maps say, and that they are made only once."""

import ast
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.data.label_maps import resample_nearest
from jdissect.data.loader import Batch
from jdissect.models import segmenter_labels
from jdissect.ops.resample import pool
from jdissect.results import run_directory
from jdissect.runtime.devices import Devices
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.parsing import MEANS, Parser, _part_tables, gate_parts
from jdissect.segmenters.upernet import SOURCES, UPerNetSegmenter, open_upernet
from tests.compiling import QUICKLY
from tests.devices import environment

COUNT = 5


def batch_of(pixels, index=None, valid=None):
    count = len(pixels)
    return Batch(
        index=np.arange(count, dtype=np.int32) if index is None else np.array(index),
        valid=np.ones(count, bool) if valid is None else np.array(valid),
        pixels=pixels,
        labels=None,
        annotated=None,
        skipped=(),
    )


@pytest.fixture(scope="module")
def pixels():
    """Blocks of colour of several sizes: maps with many components."""
    rng = np.random.default_rng(0)
    images = []
    for size in (4, 8, 16, 32, 1):
        blocks = rng.integers(0, 256, (-(-72 // size), -(-104 // size), 3))
        image = blocks.repeat(size, axis=0).repeat(size, axis=1)
        images.append(image[:72, :104])
    return np.stack(images).astype(np.uint8)


def hashes(count=COUNT):
    return [f"{number:064x}" for number in range(count)]


def make(small, cache=None, **options):
    dtype = options.get("dtype", "float32")
    upernet = options.pop("upernet", small.upernet)
    color = options.pop("color", small.color)
    options.setdefault("hashes", hashes())
    options.setdefault("batch_size", 2)
    made = UPerNetSegmenter(
        networks.load_segmenter(upernet, "upernet", dtype=dtype),
        color and networks.load_segmenter(color, "ppm", dtype=dtype),
        devices=options.pop("devices", Devices("shard_map", jax.devices()[:1])),
        cache=LabelCache(cache),
        **options,
    )
    # The same networks are compiled once.
    same = (upernet, color, dtype, options["batch_size"], options.get("quarters"))
    made._step = _COMPILED.setdefault(same, made._step)
    return made


_COMPILED = {}


@pytest.fixture(scope="module")
def segmenter(small):
    return make(small)


@pytest.fixture(scope="module")
def maps(segmenter, pixels):
    return segmenter.label_maps(batch_of(pixels))


def numbers(segmenter):
    return {pair: number for number, pair in enumerate(segmenter.concepts)}


def test_vocabulary(segmenter):
    assert segmenter.concepts == (
        ("-", "object"),
        ("wall", "object"),
        ("sky", "object"),
        ("door", "object"),
        ("car", "object"),
        *((f"{name}-t", "part") for name in ("wall", "sky", "door", "car")),
        *((f"{name}-l", "part") for name in ("wall", "sky", "door", "car")),
        *((f"{name}-b", "part") for name in ("wall", "sky", "door", "car")),
        *((f"{name}-r", "part") for name in ("wall", "sky", "door", "car")),
        ("wood", "material"),
        ("glass", "material"),
        ("window", "part"),
        ("cloud", "part"),
        ("wheel", "part"),
        ("-", "-"),
        ("black", "color"),
        ("red", "color"),
        ("dark", "shade"),
        ("light", "shade"),
    )
    assert segmenter.map_names == (
        *("objects", "materials", "parts", "top and bottom", "left and right"),
        *("color", "shade"),
    )
    assert segmenter.mask_shape == (56, 56)


@pytest.fixture(scope="module")
def scores(small, pixels):
    """What the networks say, not prepared, all images at once."""
    upernet = networks.load_segmenter(small.upernet, "upernet", fold=False)
    color = networks.load_segmenter(small.color, "ppm", fold=False)
    images = pixels.astype(np.float32)
    prepared = pool(images, 256)[..., ::-1] - np.array(MEANS, np.float32)
    run = jax.jit(upernet.apply, compiler_options=QUICKLY)
    found = jax.device_get(run(upernet.params, prepared))
    colors = []
    run = jax.jit(color.apply, compiler_options=QUICKLY)
    for side in (64, 96):
        seen = pool(images, side)[..., ::-1] / 255
        seen = (seen - np.float32([0.4, 0.45, 0.5])) / np.float32([0.2, 0.25, 0.3])
        colors.append(np.asarray(run(color.params, seen)["color"]))
    return found | {"color": colors}


def softmax(values):
    values = np.exp(values - values.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def test_maps_say_what_the_networks_say(segmenter, maps, scores):
    """By loops over pixels; a few pixels may be too close to call."""
    number = numbers(segmenter)
    objects = scores["object"].argmax(axis=-1)
    assert len(np.unique(objects)) >= 3, "the test needs maps with something on them"
    assert (maps[:, 0] == objects).mean() > 0.999
    materials = scores["material"].argmax(axis=-1)
    named = np.array([0, number["wood", "material"], number["glass", "material"]])
    assert (maps[:, 1] == named[materials]).mean() > 0.999
    # Channels: wall -, door, window; sky -, cloud; car -, wheel, window.
    door = number["door", "object"]  # a part with an object's name
    window, wheel = number["window", "part"], number["wheel", "part"]
    owners = {
        1: (0, [0, door, window]),
        2: (3, [0, number["cloud", "part"]]),
        4: (5, [0, wheel, window]),
    }
    parts = np.zeros_like(objects)
    for place in np.ndindex(objects.shape):
        if objects[place] in owners:
            first, group = owners[objects[place]]
            best = scores["part"][place][first : first + len(group)].argmax()
            parts[place] = group[best]
    assert (maps[:, 2] == parts).mean() > 0.999
    assert parts.any()
    # Softmax twice makes what is second best almost as good.
    total = sum(softmax(softmax(each)[..., :3]) for each in scores["color"])
    first = number["-", "-"]
    assert (maps[:, 5] == first + total.argmax(axis=-1)).mean() > 0.99
    total = sum(softmax(softmax(each)[..., 3:]) for each in scores["color"])
    assert (maps[:, 6] == first + 3 + total.argmax(axis=-1)).mean() > 0.99


def test_quarters_are_of_the_objects_that_are_there(segmenter, maps, small, pixels):
    objects, vertical, horizontal = maps[:, 0], maps[:, 3], maps[:, 4]
    for quarter, sides in ((vertical, (1, 3)), (horizontal, (2, 4))):
        there = quarter > 0
        assert np.isin((quarter - objects)[there], [4 * side for side in sides]).all()
        assert (objects[there] > 0).all()
        assert ((objects > 0) & ~there).any(), "the last component has none"
    all_quarters = make(small, quarters="all", color=None)
    every = all_quarters.label_maps(batch_of(pixels))
    # Without colours: the same numbers, and no maps of them.
    assert all_quarters.map_names == segmenter.map_names[:5]
    assert ("black", "color") not in all_quarters.concepts
    np.testing.assert_array_equal(every[:, :3], maps[:, :3])
    assert ((every[:, 3] > 0) == (objects > 0)).all()
    assert (every[:, 3] == vertical)[vertical > 0].all()


@pytest.mark.slow
def test_without_quarters(segmenter, maps, small, pixels):
    none = make(small, quarters="none", color=None)
    without = none.label_maps(batch_of(pixels))
    assert none.map_names == ("objects", "materials", "parts")
    assert not any(name.endswith(("-t", "-l")) for name, _ in none.concepts)
    named = np.array(none.concepts)
    for ours, theirs in ((1, 1), (2, 2)):
        both = named[without[:, ours]], np.array(segmenter.concepts)[maps[:, theirs]]
        np.testing.assert_array_equal(*both)


def test_maps_do_not_depend_on_place_or_companions(segmenter, pixels, maps):
    order = [3, 0, 4, 1, 2]
    found = segmenter.label_maps(batch_of(pixels[order], order))
    np.testing.assert_array_equal(found, maps[order])
    for index in range(COUNT):
        alone = segmenter.label_maps(batch_of(pixels[index : index + 1], [index]))
        np.testing.assert_array_equal(alone[0], maps[index])


@pytest.mark.slow
def test_padding_is_not_computed(small, pixels):
    network = networks.load_segmenter(small.upernet, "upernet")
    calls = []

    def counted(params, images, size):
        jax.debug.callback(lambda: calls.append(1))
        return network.apply(params, images, size=size)

    parser = Parser(counted, network.labels, quarters="none", side=network.side)
    wanted = np.array([True, False, True, False, False])
    run = jax.jit(parser)
    found = run((network.params, None), pixels, wanted)
    every = run((network.params, None), pixels, np.ones(COUNT, bool))
    np.testing.assert_array_equal(found[wanted], every[wanted])
    jax.effects_barrier()
    assert len(calls) == 2 + COUNT and not found[~wanted].any()


def test_images_that_are_not_valid_have_no_labels(segmenter, pixels, maps):
    valid = [True, False, True, False, True]
    found = segmenter.label_maps(batch_of(pixels, [0, -1, 2, -1, 4], valid))
    assert not found[1].any() and not found[3].any()
    np.testing.assert_array_equal(found[valid], maps[valid])


def test_another_grid_is_by_nearest_neighbour(small, pixels, maps):
    coarse = make(small, mask_size=20)
    assert coarse.mask_shape == (20, 20)
    found = coarse.label_maps(batch_of(pixels))
    np.testing.assert_array_equal(found, resample_nearest(maps, (20, 20)))


def test_64_bit_mode_changes_nothing(small, pixels, maps):
    with jax.enable_x64(True):
        found = make(small).label_maps(batch_of(pixels))
    assert found.dtype == maps.dtype
    np.testing.assert_array_equal(found, maps)


def test_gate_parts_by_loops():
    rng = np.random.default_rng(0)
    objects = rng.integers(0, 4, (1, 6, 7))
    scores = rng.normal(size=(1, 6, 7, 5)).astype(np.float32)
    channels = np.array([[-1, -1, -1], [3, 4, -1], [-1, -1, -1], [0, 1, 2]])
    table = np.array([[0, 0, 0], [0, 30, 0], [0, 0, 0], [0, 10, 20]])
    found = np.asarray(gate_parts(objects, scores, channels, table))
    for place in np.ndindex(objects.shape):
        own = [c for c in channels[objects[place]] if c >= 0]
        best = np.argmax(scores[place][own]) if own else 0
        assert found[place] == table[objects[place]][best]


def test_parts_belong_to_all_numbers_of_their_owner():
    """Two channels of one name are one object: its parts are found on either."""
    names = {"object": ["-", "cat", "wall", "cat"], "part": ["-", "tail", "paw"]}
    content = {**names, "material": ["-"], "scene": ["bar"]}
    content["object_part"] = {"cat": ["-", "tail", "paw"], "wall": ["-", "paw"]}
    labels = segmenter_labels.read_upernet(content)
    numbers = segmenter_labels.upernet_concepts(labels, quarters=False)
    tables = _part_tables(labels, numbers.part_numbers)
    scores = np.array([[[[0, 1, 2, 0, 1]] * 4]], np.float32).reshape(1, 2, 2, 5)
    found = gate_parts(np.array([[[0, 1], [2, 3]]]), scores, *tables)
    paw = numbers.concepts.index(("paw", "part"))
    assert np.asarray(found).tolist() == [[[0, paw], [paw, paw]]]


@pytest.fixture
def refuse_to_segment(monkeypatch):
    def refuse(self, pixels):
        raise AssertionError(f"{len(pixels)} images are segmented")

    return lambda: monkeypatch.setattr(UPerNetSegmenter, "_segment", refuse)


def test_an_image_is_segmented_once(small, pixels, maps, tmp_path, refuse_to_segment):
    make(small, tmp_path).label_maps(batch_of(pixels[:3]))
    second = make(small, tmp_path)
    asked = []
    segment = second._segment
    second._segment = lambda images: asked.append(len(images)) or segment(images)
    np.testing.assert_array_equal(second.label_maps(batch_of(pixels)), maps)
    assert sum(asked) == 2
    refuse_to_segment()
    third = make(small, tmp_path, mask_size=28)
    found = third.label_maps(batch_of(pixels))
    np.testing.assert_array_equal(found, resample_nearest(maps, (28, 28)))


CHANGES = {
    "weights": {"upernet": "other"},
    "colours": {"color": None},
    "quarters": {"quarters": "all"},
    "batch size": {"batch_size": 3},
    "dtype": {"dtype": "bfloat16"},
    "content": {"hashes": ["f" * 64] * COUNT},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_changed_anything_is_a_miss(
    changed, small, pixels, tmp_path, refuse_to_segment
):
    cache = LabelCache(tmp_path)
    base = make(small, tmp_path)
    for place in range(COUNT):
        cache.put(base._key(batch_of(pixels), place), np.ones((7, 56, 56), np.int16))
    refuse_to_segment()
    assert (base.label_maps(batch_of(pixels)) == 1).all()
    options = dict(CHANGES[changed])
    if changed == "weights":
        options["upernet"] = small.other
    with pytest.raises(AssertionError, match="are segmented"):
        make(small, tmp_path, **options).label_maps(batch_of(pixels))


def test_a_changed_pixel_or_source_file_is_a_miss(small, pixels, tmp_path, monkeypatch):
    base = make(small, tmp_path)
    key = base._key(batch_of(pixels), 0)
    other = pixels.copy()
    other[0, 5, 5, 2] ^= 1
    assert base._key(batch_of(other), 0) != key
    # A photograph that is turned by its EXIF has the same content.
    assert base._key(batch_of(pixels[:, ::-1, ::-1]), 0) != key
    monkeypatch.setattr("jdissect.base.identity.source_hash", lambda names=(): "edited")
    assert make(small, tmp_path)._key(batch_of(pixels), 0) != key


def test_the_key_covers_every_file_that_the_maps_come_from():
    """All that parsing and the networks import, and what these import."""
    package = pathlib.Path(run_directory.__file__).parents[1]
    seen, waiting = set(), ["segmenters/parsing", "models/upernet", "models/ppm"]
    while waiting:
        name = waiting.pop()
        if name in seen or not (package / f"{name}.py").is_file():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((package / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("jdissect"):
                base = node.module.replace(".", "/").removeprefix("jdissect")
                base = base.removeprefix("/")
                waiting += [base, *(f"{base}/{a.name}".lstrip("/") for a in node.names)]
    covered = [n for n in seen if n in SOURCES or n.split("/")[0] in SOURCES]
    without = {"base/errors", "base/concepts", "base/arrays"}  # they compute nothing
    assert seen - set(covered) == without
    assert {"ops/winograd", "models/pyramid", "models/segmenter_labels"} <= set(covered)
    for name in SOURCES:
        assert (package / name).is_dir() or (package / f"{name}.py").is_file()


def test_a_damaged_entry_is_segmented_again(small, pixels, maps, tmp_path):
    make(small, tmp_path).label_maps(batch_of(pixels))
    entries = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(entries) == COUNT
    for path in entries:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = make(small, tmp_path).label_maps(batch_of(pixels))
    np.testing.assert_array_equal(found, maps)


SCRIPT = """
import sys, numpy as np, jax
from jdissect.checkpoints import networks
from jdissect.data.loader import Batch
from jdissect.segmenters.label_cache import LabelCache
from jdissect.runtime.devices import Devices
from jdissect.segmenters.upernet import UPerNetSegmenter
upernet, color, file, mode, out = sys.argv[1:]
pixels = np.load(file)
count = len(pixels)
segmenter = UPerNetSegmenter(
    networks.load_segmenter(upernet),
    networks.load_segmenter(color) if color else None,
    devices=Devices(mode), cache=LabelCache(None), hashes=["0"] * count, batch_size=3)
batch = Batch(np.arange(count), np.ones(count, bool), pixels, None, None, ())
np.save(out, segmenter.label_maps(batch))
print(jax.device_count())
"""


@pytest.mark.parametrize(
    ("devices", "mode", "with_color"),
    [
        pytest.param(4, "shard_map", True, marks=pytest.mark.slow),
        pytest.param(2, "pmap", False, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_devices_gives_the_same_maps(
    devices, mode, with_color, small, pixels, maps, tmp_path
):
    np.save(tmp_path / "pixels.npy", pixels)
    color = small.color if with_color else ""
    arguments = [small.upernet, color, tmp_path / "pixels.npy", mode]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments), tmp_path / "maps.npy"],
        env=environment(devices),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(devices)
    found = np.load(tmp_path / "maps.npy")
    np.testing.assert_array_equal(found, maps if with_color else maps[:, :5])


def config_of(**options):
    from jdissect.configs.common import get_common

    config = get_common()
    config.segmenter.update(options)
    return config


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (224, 224), "config.segmenter.upernet is not set"),
        ({"upernet": "upernet", "quarters": "half"}, (224, 224), "'half'"),
        ({"upernet": "upernet"}, (31, 224), "31x224 pixels"),
        ({"upernet": "color"}, (224, 224), "holds a ppm, not a upernet"),
        ({"upernet": "upernet", "color": "upernet"}, (224, 224), "not a ppm"),
        ({"upernet": "nowhere"}, (224, 224), "is missing"),
    ],
)
def test_refusals(options, shape, message, small):
    for key in ("upernet", "color"):
        if key in options:
            options[key] = str(getattr(small, options[key], options[key]))
    with pytest.raises(UserError, match=message):
        open_upernet(config_of(**options), shape, hashes(), Devices(), LabelCache(None))


def test_labels_that_do_not_fit_the_network_are_refused(small, tmp_path):
    """A model.json that was edited by hand."""
    for change, message in (
        (lambda labels: labels["object"].append("lamp"), "objects"),
        (lambda labels: labels["object_part"].pop("sky"), "parts"),
        (lambda labels: labels.pop("material"), "material"),
    ):
        folder = tmp_path / message
        folder.mkdir()
        (folder / "params").symlink_to(small.upernet / "params")
        description = json.loads((small.upernet / "model.json").read_text())
        change(description["labels"])
        (folder / "model.json").write_text(json.dumps(description))
        with pytest.raises(UserError, match=message) as caught:
            networks.load_segmenter(folder, "upernet")
        assert len(str(caught.value).splitlines()) <= 2
