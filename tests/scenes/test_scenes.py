"""The source 'scenes': its pictures, their label maps, and what is made of them."""

import hashlib
import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.data.loader import batches
from jdissect.datasets import open_source
from jdissect.datasets.broden import open_broden
from jdissect.runtime import command_line
from jdissect.scenes import (
    CLASSES,
    CONCEPTS,
    GENERATOR_VERSION,
    SIDE,
    open_scenes,
    prepare,
    prepared,
    world,
)
from jdissect.scenes import __main__ as scenes_command
from jdissect.scenes.draws import Draws, direction
from jdissect.scenes.raster import Ellipse, Polygon, paint
from jdissect.scenes.textures import tiles

# A change of these is a change of the world: give it a new GENERATOR_VERSION.
PINNED = {
    "probe/0": "9b1ef4a3fc70b35017baf285afc30e366c521cd73859804a2c7268fc9f126089",
    "validation/7": "baf50544b4a0815803ab93a1451f11736e714a829201854707d3cf4b5d3b5a13",
    "train/19999": "13447cf2591be83e7eb4e366288ec4502716206f35db1beef64430a0fd84495a",
}
# Of one picture of each class.
PINNED_CLASSES = "cf3f9a60fcc0d8a8e8af64ab866d74323b500a774f2fcaff720130f80f84a390"
STUDIED = 640  # pictures of the probe split that the statistics are made on
OBJECT, PART, MATERIAL, COLOR = range(4)


def digest(example):
    pixels = example.pixels.tobytes()
    return hashlib.sha256(pixels + example.labels.astype("<i4").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def studied():
    """Pictures with their labels."""
    source = open_scenes("probe", STUDIED)
    examples = [source.read(index) for index in range(STUDIED)]
    pixels = np.stack([example.pixels for example in examples])
    labels = np.stack([example.labels.astype(np.int16) for example in examples])
    annotated = np.stack([example.annotated for example in examples])
    return source, pixels, labels, annotated


def test_the_bits_are_pinned():
    found = {}
    for key in PINNED:
        split, index = key.split("/")
        found[key] = digest(open_scenes(split).read(int(index)))
    source = open_scenes("probe")
    texts = [digest(source.read(index)) for index in range(len(CLASSES))]
    classes = hashlib.sha256("".join(texts).encode()).hexdigest()
    assert sorted(source.labels[: len(CLASSES)]) == list(range(len(CLASSES)))
    assert (found, classes) == (PINNED, PINNED_CLASSES), (
        "new pixels or labels need a new GENERATOR_VERSION"
    )


def test_another_process_another_order():
    """Picture i depends on nothing that was drawn before it."""
    indices = [37, 2, 905, 0]
    source = open_scenes("probe")
    here = [digest(source.read(index)) for index in indices]
    code = f"""
import hashlib
from jdissect.scenes import open_scenes
source = open_scenes("probe")
for index in {indices[::-1]}:
    e = source.read(index)
    data = e.pixels.tobytes() + e.labels.astype("<i4").tobytes()
    print(hashlib.sha256(data).hexdigest())
"""
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert there[::-1] == here
    assert len(set(here)) == len(here)


def test_names_hashes_and_labels():
    source = open_scenes("validation", 70)
    assert source.names[3] == f"scenes/{GENERATOR_VERSION}/validation/3"
    assert source.image_shape == source.annotations.grid == (SIDE, SIDE)
    assert source.annotations.maps == 4
    assert categories(CONCEPTS) == world.MAPS
    counts = np.bincount(source.labels, minlength=len(CLASSES))
    assert counts.max() - counts.min() <= 1
    assert [source.label(index) for index in range(70)] == source.labels.tolist()
    assert len(open_scenes("train").names) == 20_000
    everything = {
        text
        for split in ("train", "validation", "probe")
        for seed in (0, 1)
        for other in [open_scenes(split, 10, seed)]
        for text in other.content_hashes(None) + other.annotation_hashes(None)
    }
    assert len(everything) == 3 * 2 * 10 * 2
    assert source.content_hashes(None)[:10] == (
        open_scenes("validation", 10).content_hashes(None)
    )
    longer, other = open_scenes("validation", 71), open_scenes("validation", 70, 1)
    assert digest(longer.read(5)) == digest(source.read(5)) != digest(other.read(5))
    assert len(source.vocabulary_hash) == 64
    with pytest.raises(IndexError):
        source.read(70)


def test_vocabulary():
    assert len(CLASSES) >= 12
    assert len(world.OBJECTS) >= 25
    assert len(world.PARTS) >= 40
    assert len(world.MATERIALS) >= 10
    assert len(world.COLORS) == 11
    assert len(set(CONCEPTS)) == len(CONCEPTS)
    assert world.PART_NUMBER["door"] == world.OBJECT_NUMBER["door"]
    assert CONCEPTS[world.PART_NUMBER["wheel"]] == ("wheel", "part")


def test_every_concept_occurs(studied):
    _, _, labels, annotated = studied
    images = np.zeros(len(CONCEPTS), int)
    for maps in labels:
        most = [np.bincount(one.ravel(), minlength=len(CONCEPTS)) for one in maps]
        images += np.max(most, axis=0) >= 6  # pixels
    order = np.argsort(images[1:]) + 1
    print(*[f"{images[n]:4d} {CONCEPTS[n]}" for n in order], sep="\n")
    rare = [CONCEPTS[n] for n in order if images[n] < 0.015 * STUDIED]
    assert rare == []
    assert annotated.all()


def test_maps_agree(studied):
    _, _, labels, _ = studied
    assert (labels[:, [OBJECT, MATERIAL, COLOR]] > 0).all()
    name = np.array([name for name, _ in CONCEPTS])
    category = np.array([category for _, category in CONCEPTS])
    assert (category[np.unique(labels[:, OBJECT])] == "object").all()
    assert (category[np.unique(labels[:, MATERIAL])] == "material").all()
    assert (category[np.unique(labels[:, COLOR])] == "color").all()
    pairs = labels[:, OBJECT].astype(np.int64) * 1000 + labels[:, PART]
    for pair in np.unique(pairs):
        owner, part = divmod(int(pair), 1000)
        assert not part or name[part] in world.OBJECT_PARTS[name[owner]]
    seen = {divmod(int(pair), 1000) for pair in np.unique(pairs)}
    for owner, parts in world.OBJECT_PARTS.items():
        for part in parts:
            number = world.OBJECT_NUMBER[owner], world.PART_NUMBER[part]
            assert number in seen, f"{part} of {owner} is nowhere to be seen"


def test_objects_are_shared_between_classes(studied):
    source, _, labels, _ = studied
    classes = {name: set() for name in world.OBJECTS}
    for label, maps in zip(source.labels, labels, strict=True):
        for number in np.unique(maps[OBJECT]):
            classes[CONCEPTS[number][0]].add(CLASSES[label])
    for name in ("person", "car", "tree", "chair", "table", "lamp", "plant", "dog"):
        assert len(classes[name]) >= 3, name
    assert sum(len(found) > 1 for found in classes.values()) > len(classes) / 2


def test_things_hide_others(studied):
    """Persons whose legs are hidden, wheels with something before them."""
    _, _, labels, _ = studied
    person, leg = world.OBJECT_NUMBER["person"], world.PART_NUMBER["leg"]
    shown = (labels[:, OBJECT] == person).sum(axis=(1, 2))
    legs = ((labels[:, OBJECT] == person) & (labels[:, PART] == leg)).sum(axis=(1, 2))
    assert ((shown > 80) & (legs == 0)).any()
    assert ((shown > 80) & (legs > 0.2 * shown)).any()


def test_colors_look_like_their_names(studied):
    """In daylight the surfaces of a colour are nearer to it than to its opposite."""
    _, pixels, labels, _ = studied
    mean = {
        name: pixels[labels[:, COLOR] == world.COLOR_NUMBER[name]].mean(axis=0)
        for name in world.COLORS
    }
    assert mean["red"][0] > 1.3 * max(mean["red"][1:])
    assert mean["green"][1] > max(mean["green"][[0, 2]])
    assert mean["blue"][2] > mean["blue"][0]
    assert mean["white"].min() > mean["gray"].max() > mean["black"].max()
    assert mean["yellow"][:2].min() > mean["yellow"][2]


def test_a_mean_colour_does_not_tell_the_class(studied):
    source, pixels, _, _ = studied
    half, labels = STUDIED // 2, source.labels
    means = pixels.mean(axis=(1, 2))
    centers = np.stack(
        [means[:half][labels[:half] == n].mean(axis=0) for n in range(len(CLASSES))]
    )
    distance = ((means[half:, None] - centers) ** 2).sum(axis=-1)
    accuracy = (distance.argmin(axis=1) == labels[half:]).mean()
    print(f"nearest mean colour: {accuracy:.1%}")
    assert accuracy < 0.35

    small = pixels.reshape(STUDIED, 7, 16, 7, 16, 3).mean(axis=(2, 4))
    features = np.c_[small.reshape(STUDIED, -1) / 255, np.ones(STUDIED)]
    known, target = features[:half], np.eye(len(CLASSES))[labels[:half]]
    ridge = known.T @ known + np.eye(features.shape[1])
    weights = np.linalg.solve(ridge, known.T @ target)
    guess = (features[half:] @ weights).argmax(axis=1)
    accuracy = (guess == labels[half:]).mean()
    print(f"linear on 7 x 7 pixels: {accuracy:.1%}")
    assert accuracy < 0.55


@pytest.mark.timing
def test_speed():
    source = open_scenes("probe", 100)
    source.read(0)  # makes the textures
    start = time.process_time()
    for index in range(100):
        source.read(index)
    seconds = (time.process_time() - start) / 100
    print(f"{1 / seconds:.0f} images a second a core")
    assert seconds < 0.05  # a loose bound: on a busy machine too


@pytest.mark.slow
def test_loader_with_processes():
    source = open_scenes("probe", 18)
    assert len(pickle.dumps(source)) < 2000
    for ours, theirs in zip(
        batches(source, 8, workers=2), batches(source, 8), strict=True
    ):
        for field in ("index", "valid", "pixels", "labels", "annotated"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_from_a_config(config):
    source = open_source(config("scenes", num_images=3))
    assert source.names[0] == f"scenes/{GENERATOR_VERSION}/probe/0"
    assert len(source.names) == 3
    assert len(open_source(config("scenes", split="validation")).names) == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test",), "no split 'test'; it has train, validation, probe"),
        (("train", -1), "number of images is -1"),
        (("train", 1, -2), "seed is -2"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        open_scenes(*arguments)
    assert "\n" not in str(caught.value)


def is_whole(folder):
    """Whether the arrays' bytes are those that the manifest names."""
    digests = json.loads((folder / "manifest.json").read_bytes())["sha256"]
    return set(digests) == {"pixels", "labels"} and all(
        hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest() == digest
        for name, digest in digests.items()
    )


def test_prepared_equals_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_CHUNK", 4)
    drawn = open_scenes("train", 12, seed=3)
    assert is_whole(prepare(tmp_path, "train", 6, seed=3, processes=1))
    folder = prepare(tmp_path, "train", 10, seed=3, processes=2)
    assert is_whole(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "labels.npy",
        "manifest.json",
        "pixels.npy",
    ]
    source = open_scenes("train", 12, seed=3, prepared=tmp_path)
    assert source.prepared.count == 10
    assert source.names == drawn.names
    assert source.content_hashes(None) == drawn.content_hashes(None)
    for index in (0, 5, 6, 9, 11):  # the last is not prepared
        ours, theirs = source.read(index), drawn.read(index)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.labels.dtype == theirs.labels.dtype == np.int32
        np.testing.assert_array_equal(ours.annotated, theirs.annotated)
    again = pickle.loads(pickle.dumps(source))
    assert digest(again.read(9)) == digest(drawn.read(9))
    assert open_scenes("train", 4, prepared=tmp_path).prepared is None  # seed 0


def test_preparing_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_CHUNK", 2)
    drawn = []

    def render(seed, split, index):
        if index == 5:
            raise KeyboardInterrupt
        drawn.append(index)
        return original(seed, split, index)

    original = prepared.render
    monkeypatch.setattr(prepared, "render", render)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, "probe", 6, processes=1)
    assert open_scenes("probe", 6, prepared=tmp_path).prepared is None
    monkeypatch.setattr(prepared, "render", original)
    drawn.clear()
    monkeypatch.setattr(
        prepared, "render", lambda *key: drawn.append(key[-1]) or original(*key)
    )
    prepare(tmp_path, "probe", 6, processes=1)
    assert drawn == [4, 5]
    prepare(tmp_path, "probe", 3, processes=1)
    assert drawn == [4, 5]
    source = open_scenes("probe", 6, prepared=tmp_path)
    assert digest(source.read(5)) == digest(open_scenes("probe").read(5))


def test_prepared_by_another_version(tmp_path):
    folder = prepare(tmp_path, "probe", 1, processes=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["generator_version"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"of version \d+ of the generator") as caught:
        open_scenes("probe", prepared=tmp_path)
    assert "\n" not in str(caught.value)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is damaged"):
        open_scenes("probe", prepared=tmp_path)


def test_damaged_arrays(tmp_path):
    folder = prepare(tmp_path, "probe", 2, processes=1)
    (folder / "labels.npy").write_bytes(b"short")
    with pytest.raises(UserError, match="labels.npy is damaged"):
        open_scenes("probe", prepared=tmp_path)


def scenes(arguments):
    return command_line.entry(scenes_command.main, ["scenes", *arguments])


def test_export_is_a_broden_folder(tmp_path, capsys):
    count = 20
    folder = tmp_path / "out"
    arguments = [f"--export={folder}", f"--count={count}", "--seed=1"]
    assert scenes(arguments) == 0
    source, broden = open_scenes("probe", count, seed=1), open_broden(str(folder))
    assert len(broden.names) == count
    assert broden.rows[0].split == "probe"
    assert broden.annotations == source.annotations
    for index in range(count):
        ours, theirs = source.read(index), broden.read(index)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.annotated, theirs.annotated)
    capsys.readouterr()
    assert scenes(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "is not empty" in error
    assert error.count("\n") == 1
    assert scenes([*arguments, "--count=2", "--overwrite"]) == 0
    assert len(open_broden(str(folder)).names) == 2
    capsys.readouterr()
    assert scenes([f"--export={folder / 'index.csv'}"]) == 2
    assert "is a file" in capsys.readouterr().err
    assert scenes([f"--export={tmp_path / 'x'}", "--split=test"]) == 2
    assert "no split 'test'" in capsys.readouterr().err


def test_paint_against_a_loop():
    """Every point of the fine grid by itself, with the textbook's formulas."""
    square = Polygon(1, [(10.3, 20.2), (30.7, 20.2), (30.7, 40.9), (10.3, 40.9)])
    triangle = Polygon(2, [(20.0, 60.5), (44.2, 30.1), (50.0, 55.0)])
    hexagon = Polygon(
        4, [(60.3, 10.2), (70, 12.1), (74.4, 22), (66, 33.3), (55.2, 30), (52, 18.6)]
    )
    a, b = (14.0, 6.0), (-3.0, 7.0)  # half axes
    ellipse = Ellipse(
        3,
        45.0,
        40.0,
        a[0] ** 2 + b[0] ** 2,
        a[0] * a[1] + b[0] * b[1],
        a[1] ** 2 + b[1] ** 2,
    )
    seen = paint([square, triangle, hexagon], [ellipse])
    assert seen.shape == (2 * SIDE, 2 * SIDE)
    y, x = (np.mgrid[: 2 * SIDE, : 2 * SIDE] + 0.5) / 2
    expected = np.zeros_like(seen)
    for surface, corners in (square, triangle):
        expected[_inside(corners, x, y)] = surface
    matrix = np.linalg.inv([[ellipse.xx, ellipse.xy], [ellipse.xy, ellipse.yy]])
    offset = np.stack([x - ellipse.x, y - ellipse.y], axis=-1)
    expected[np.einsum("...i,ij,...j", offset, matrix, offset) <= 1] = 3
    expected[_inside(hexagon.corners, x, y)] = 4
    np.testing.assert_array_equal(seen, expected)


def _inside(corners, x, y):
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
    ]
    return np.all(np.array(sides) > 0, axis=0) | np.all(np.array(sides) < 0, axis=0)


def test_draws_and_directions():
    draws = Draws(1, 2)
    values = np.array([draws.unit() for _ in range(5000)])
    assert 0 <= values.min() < 0.01 < 0.99 < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    raw = np.random.PCG64(np.random.SeedSequence((1, 2))).random_raw(1024)
    assert values[0] == (int(raw[-1]) >> 11) / 2**53
    assert sorted(draws.permutation(50)) == list(range(50))
    assert {draws.integer(2, 4) for _ in range(100)} == {2, 3, 4}
    for degrees in (0, 30, 90, 200, -45):
        expected = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        np.testing.assert_allclose(direction(degrees), expected, atol=4e-3)


def test_textures():
    shade, gloss = tiles()
    assert shade.shape == (len(world.MATERIALS), 4, 256, 256)
    assert np.isfinite(shade).all()
    assert (np.abs(shade) < 0.9).all()
    assert (gloss > -1e-6).all()
    contrast = shade[:, 0].std(axis=(1, 2)) + gloss[:, 0].std(axis=(1, 2))
    assert (contrast > 0.01).all()
    # No seam: neighbours across the edge differ as neighbours inside do.
    edge = np.abs(shade[:, 0, :, 0] - shade[:, 0, :, -1]).mean()
    inside = np.abs(np.diff(shade[:, 0], axis=2)).mean()
    assert edge < 1.6 * inside
