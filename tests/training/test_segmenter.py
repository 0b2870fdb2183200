"""A UPerNet's training on the masks of scenes: losses, labels, runs, refusals."""

import json
import types

import jax
import numpy as np
import pytest

from jdissect import train_segmenter
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.data import loader
from jdissect.data.label_maps import resample_nearest
from jdissect.evaluation.segmenter import GRID, MaskEvaluator
from jdissect.models import segmenter_labels
from jdissect.ops.resample import pool
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices
from jdissect.scenes import CONCEPTS, SIDE, open_scenes, world
from jdissect.scenes.channels import NO_OWNER, channels, upernet_labels
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.parsing import MEANS, Parser, prepare_images
from jdissect.segmenters.upernet import open_upernet
from jdissect.training import segmentation
from tests.small_trainings import metrics, run, weights

STEPS = 3  # an epoch of `command`


@pytest.fixture(scope="module")
def source():
    return open_scenes("validation", 4)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return [
        "--config=configs/segmenter.py",
        f"--config.cache.dir={tmp_path_factory.mktemp('cache')}",
        "--config.data.batch_size=2",
        "--config.train.width=2",
        "--config.train.fpn_dim=4",
        "--config.train.image_size=48",
        "--config.train.window=96",
        "--config.train.grid=8",
        "--config.train.num_images=7",
        "--config.train.validation_images=3",
        "--config.train.epochs=2",
        "--config.train.batch_size=2",
        "--config.train.bn_group=2",
        "--config.train.log_every=1",
    ]


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    """A finished training's folder."""
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    arguments = ["program", *command, f"--workdir={folder}"]
    assert command_line.entry(train_segmenter.main, arguments) == 0
    return folder


def test_labels_are_those_of_scenes():
    labels = upernet_labels()
    assert segmenter_labels.read_upernet(labels.to_json()) == labels
    concepts = segmenter_labels.upernet_concepts(labels, quarters=False).concepts
    wanted = {concept for concept in CONCEPTS if concept[1] != "color"}
    assert set(concepts[1:]) == wanted - {CONCEPTS[0]}
    groups = {labels.objects[owner]: group for owner, group in labels.object_parts}
    assert groups == {o: ("-", *p) for o, p in world.OBJECT_PARTS.items() if p}
    assert labels.scenes == world.CLASSES
    assert labels.channels["parts"] == len(channels().part_owner)


def test_channels_name_what_is_drawn(source):
    """Every pixel's channels, read by the labels, are the concepts of its numbers."""
    labels = upernet_labels()
    part_names = [name for _, group in labels.object_parts for name in group]
    for index in range(2):
        maps = source.read(index).labels
        found = segmentation.to_channels(maps)
        together = np.concatenate([maps[:3], found]).reshape(6, -1)
        for drawn, part, stuff, *of_heads in np.unique(together, axis=1).T:
            assert labels.objects[of_heads[0]] == CONCEPTS[drawn][0]
            assert labels.materials[of_heads[2]] == CONCEPTS[stuff][0]
            owner = CONCEPTS[drawn][0]
            if not world.OBJECT_PARTS.get(owner):
                assert of_heads[1] == NO_OWNER
                continue
            assert part_names[of_heads[1]] == CONCEPTS[part][0]
            assert labels.objects[channels().part_owner[of_heads[1]]] == owner


def test_crop_and_flip_move_pixels_and_maps_alike():
    rows, columns = np.indices((SIDE, SIDE))
    pixels = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    maps = (SIDE * rows + columns)[None].astype(np.int32)
    geometry = segmentation.Geometry(window=96, grid=48, flip=True)
    corners, flips = set(), set()
    for seed in range(40):
        random = np.random.default_rng(seed)
        some, labels = segmentation.crop_and_flip(random, pixels, maps, geometry)
        assert some.shape == (96, 96, 3) and labels.shape == (1, 96, 96)
        wide = some.astype(np.int32)
        np.testing.assert_array_equal(SIDE * wide[..., 0] + wide[..., 1], labels[0])
        step = wide[0, 1, 1] - wide[0, 0, 1]
        assert (np.diff(wide[..., 1], axis=1) == step).all()
        corners.add((wide[0, 0, 0], wide[0, :, 1].min()))
        flips.add(step)
    assert len(corners) > 20 and flips == {-1, 1}
    assert max(max(corner) for corner in corners) <= SIDE - 96


def test_batches(source):
    """From any batch on the same ones; whole pictures are as they were drawn."""
    geometry = segmentation.Geometry(window=SIDE, grid=56, flip=False)

    def read(start):
        found = segmentation.mask_batches(
            source, 2, geometry, seed=3, epoch=1, start=start
        )
        return list(found)

    batches = read(0)
    order = np.random.default_rng([3, 1]).permutation(4)
    for place, index in enumerate(order):
        batch, row = batches[place // 2], place % 2
        example = source.read(int(index))
        np.testing.assert_array_equal(batch.pixels[row], example.pixels)
        small = resample_nearest(example.labels, (56, 56))
        np.testing.assert_array_equal(batch.masks[row], segmentation.to_channels(small))
        assert batch.scenes[row] == source.label(int(index))
    for one, other in zip(batches[1], read(1)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_network_sees_what_the_parser_prepares(source):
    settings = types.SimpleNamespace(jitter=0.0, lighting=0.0)
    devices = Devices("shard_map", jax.devices()[:1])
    geometry = segmentation.Geometry(window=SIDE, grid=56, flip=False)
    batch = next(segmentation.mask_batches(source, 2, geometry, seed=0, epoch=0))
    prepare = segmentation.preparation(settings, devices, side=64, seed=0)
    found = prepare(0, batch)
    wanted = pool(batch.pixels.astype(np.float32), 64)[..., ::-1] - np.array(MEANS)
    np.testing.assert_allclose(found["images"], wanted, atol=1e-3)
    pixels = batch.pixels.astype(np.float32)
    whole = pool(pixels, SIDE)[..., ::-1] - np.float32(MEANS)
    np.testing.assert_array_equal(prepare_images(pixels, SIDE), whole)
    for row, name in enumerate(("object", "part", "material")):
        np.testing.assert_array_equal(found[name], batch.masks[:, row])


def test_losses(source):
    """Pixel by pixel, in float64."""
    rng = np.random.default_rng(0)
    labels = upernet_labels()
    maps = [
        segmentation.to_channels(source.read(i).labels[:, ::16, ::16]) for i in (0, 1)
    ]
    objects, parts, materials = np.stack(maps, axis=1)
    objects[0, 0, :3] = materials[1, 2, :2] = 0
    batch = {"object": objects, "part": parts, "material": materials}
    batch["scene"] = np.array([3, 7], np.int32)
    sizes = zip(
        ("object", "part", "material"),
        (labels.channels[key] for key in ("objects", "parts", "materials")),
        strict=True,
    )
    scores = {n: rng.normal(0, 3, (2, 7, 7, c)).astype(np.float32) for n, c in sizes}
    scores["scene"] = rng.normal(0, 3, (2, 16)).astype(np.float32)
    found = segmentation.losses(scores, batch)

    def entropy(vector, label):
        vector = vector.astype(np.float64)
        return np.log(np.exp(vector).sum()) - vector[label]

    starts, start = {}, 0
    for owner, group in labels.object_parts:
        starts[owner] = (start, start + len(group))
        start += len(group)
    groups = {c: s for s in starts.values() for c in range(*s)}
    for image in (0, 1):
        wanted = {name: [] for name in ("object", "part", "material")}
        for y, x in np.ndindex(7, 7):
            for name in ("object", "material"):
                if batch[name][image, y, x]:
                    wanted[name].append(
                        entropy(scores[name][image, y, x], batch[name][image, y, x])
                    )
            if (channel := batch["part"][image, y, x]) != NO_OWNER:
                first, end = groups[channel]
                own = scores["part"][image, y, x, first:end]
                wanted["part"].append(entropy(own, channel - first))
        wanted["scene"] = [entropy(scores["scene"][image], batch["scene"][image])]
        for name, each in wanted.items():
            total, count = (array[image] for array in found[name])
            assert count == len(each) > 0
            np.testing.assert_allclose(total, sum(each), rtol=1e-5)


def test_counts(source):
    """Against sets of pixels by name."""
    devices = Devices("shard_map", jax.devices()[:1])
    evaluator = MaskEvaluator(None, devices)
    labels = upernet_labels()
    numbers = segmenter_labels.upernet_concepts(labels, quarters=False)
    batch = next(loader.batches(source, 2))
    drawn = resample_nearest(batch.labels, (GRID, GRID))
    names = np.array([name for name, _ in CONCEPTS])[drawn[:, :3]]
    place = {pair: number for number, pair in enumerate(numbers.concepts)}
    place_of = np.array([place.get(pair, 0) for pair in CONCEPTS])
    rng = np.random.default_rng(0)
    guess = np.where(rng.random(names.shape) < 0.3, 0, place_of[drawn[:, :3]])
    moved = np.where(rng.random(names.shape) < 0.2, np.roll(guess, 5, axis=3), guess)
    counted, found, both = evaluator.count(drawn, moved)
    guessed = np.array([name for name, _ in numbers.concepts])[moved]
    owned = np.isin(names[:, 0], [o for o, p in world.OBJECT_PARTS.items() if p])
    for row in range(3):
        annotated = owned if row == 1 else names[:, row] != "-"
        truth, said = names[:, row][annotated], guessed[:, row][annotated]
        for name in np.unique(truth[truth != "-"]):
            pairs = ((name, c) for c in ("object", "part", "material"))
            pair = next(
                p for p in pairs if p in place and (row == 2) == (p[1] == "material")
            )
            number = place[pair]
            assert counted[row, number] == (truth == name).sum()
            assert found[row, number] == (said == name).sum()
            assert both[row, number] == ((truth == name) & (said == name)).sum()
        assert counted[row].sum() == (truth != "-").sum()


def test_run(done):
    found = metrics(done)
    losses = [record for record in found if "loss" in record]
    assert [record["step"] for record in losses] == list(range(1, 2 * STEPS + 1))
    rates = [0.1 * (1 - step / (2 * STEPS)) ** 0.9 for step in range(2 * STEPS)]
    np.testing.assert_allclose([record["lr"] for record in losses], rates, rtol=1e-6)
    scores = [record for record in found if "object_accuracy" in record]
    assert [record["step"] for record in scores] == [STEPS, 2 * STEPS]
    result = json.loads((done / "training.json").read_text())["result"]
    for key, value in result["scores"].items():
        assert key == "images" or value == scores[-1][key]
    assert result["scores"]["images"] == 3 and "pixel accuracy" in result["table"]


@pytest.mark.slow
def test_model_labels_images(done, source):
    """As a segmenter, at its side; and as `Parser` does."""
    network = networks.load_segmenter(done / "model", "upernet")
    assert network.side == 48 and network.labels == upernet_labels()
    made = networks.read_description(done / "model")["source"]
    assert made["steps"] == 2 * STEPS and made["scores"]["images"] == 3
    assert made["seed"] == 0 and made["config"]["train"]["width"] == 2
    options = types.SimpleNamespace(
        upernet=str(done / "model"), color="", quarters="none", batch_size=4
    )
    config = types.SimpleNamespace(segmenter=options, dtype="float32", mask_size=0)
    hashes = [f"{number:064x}" for number in range(4)]
    devices = Devices("shard_map", jax.devices()[:1])
    segmenter = open_upernet(config, (SIDE, SIDE), hashes, devices, LabelCache(None))
    batch = next(loader.batches(source, 4))
    maps = segmenter.label_maps(batch)
    parser = Parser(network.apply, network.labels, quarters="none", side=48)
    np.testing.assert_array_equal(
        maps, jax.jit(parser.__call__)((network.params, None), batch.pixels)
    )
    assert segmenter.identity(None)["upernet"]["side"] == 48


@pytest.mark.slow
def test_interrupted_training_goes_on_to_the_same_bits(
    command, done, capsys, monkeypatch, tmp_path
):
    ahead = segmentation.mask_batches

    def cut_off(*arguments, epoch, **options):
        for number, batch in enumerate(ahead(*arguments, epoch=epoch, **options)):
            if (epoch, number) == (1, 1):
                raise KeyboardInterrupt
            yield batch

    command = [
        *command,
        "--config.train.checkpoint_every=1",
        "--config.train.validation_split=",
        f"--workdir={tmp_path / 'run'}",
    ]
    monkeypatch.setattr(segmentation, "mask_batches", cut_off)
    assert run(capsys, train_segmenter, *command)[0] == 130
    monkeypatch.setattr(segmentation, "mask_batches", ahead)
    code, output, error = run(capsys, train_segmenter, *command)
    assert code == 0, error
    assert f"resuming after step {STEPS + 1} of {2 * STEPS}" in output
    assert "pixel accuracy" not in output
    assert weights(tmp_path / "run") == weights(done)
    losses = [record for record in metrics(done) if "loss" in record]
    assert metrics(tmp_path / "run") == losses


def test_finished_training_is_reported_again(command, done, capsys):
    before = weights(done)
    code, output, _ = run(capsys, train_segmenter, *command, f"--workdir={done}")
    assert code == 0 and "is finished" in output and "pixel accuracy" in output
    assert weights(done) == before
    other = [*command, "--config.loss.scene=0.0", f"--workdir={done}"]
    code, _, error = run(capsys, train_segmenter, *other)
    assert code == 2 and "different: loss.scene" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.data.source=folder"], "trains on masks"),
        (["--config.model.name=ppm"], "config.model.name is 'ppm'"),
        (["--config.train.depth=19"], "config.train.depth is 19"),
        (["--config.train.window=113"], "config.train.window is 113"),
        (["--config.train.window=64", "--config.train.image_size=48"], "needs 32x32"),
        (["--config.train.grid=200"], "config.train.grid is 200"),
        (["--config.train.bn_group=3"], "config.train.bn_group is 3"),
        (["--config.train.num_images=1"], "fewer than"),
        (["--config.loss.part=-1.0"], "config.loss.part is -1.0"),
        (["--config=configs/mixup.py"], "--config=configs/segmenter.py"),
        (["--config=configs/segmenter.py:small"], "no variant 'small'"),
    ],
)
def test_refusals(command, capsys, tmp_path, arguments, words):
    if arguments[0].startswith("--config="):
        arguments = [*arguments, "--config.train.epochs=1"]
    else:
        arguments = [*command, *arguments]
    code, _, error = run(
        capsys, train_segmenter, *arguments, f"--workdir={tmp_path / 'run'}"
    )
    assert code == 2 and words in error
    assert error.count("\n") <= 2 and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", [31, 4097, 112.0, True, "112", None])
def test_bad_side(done, tmp_path, side):
    (tmp_path / "model").mkdir()
    content = json.loads((done / "model" / "model.json").read_text()) | {"side": side}
    (tmp_path / "model" / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="side is"):
        networks.load_segmenter(tmp_path / "model", "upernet")


def test_the_usual_side_is_not_written():
    description = networks.describe_segmenter({"name": "upernet"}, {})
    assert "side" not in description
    assert networks.describe_segmenter({"name": "upernet"}, {}, side=96)["side"] == 96
