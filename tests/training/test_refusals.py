"""What training refuses: one line that says what was wrong, and exit code 2."""

import shutil
from pathlib import Path

import pytest

from jdissect import train
from jdissect.base.errors import UserError
from jdissect.training import train_classifier
from tests.small_trainings import command, run


@pytest.fixture(scope="module")
def odd_folders(class_folders, tmp_path_factory):
    """The class folders, and splits with which something is wrong."""
    root = tmp_path_factory.mktemp("odd") / "pictures"
    shutil.copytree(class_folders, root)
    red = root / "train" / "red"
    for name in ("empty/cat", "nothing/cat", "flat", "other/purple"):
        (root / name).mkdir(parents=True)
    shutil.copytree(red, root / "empty" / "red")
    shutil.copytree(red, root / "one" / "red")
    shutil.copy(red / "0.png", root / "flat" / "a.png")
    shutil.copy(red / "0.png", root / "other" / "purple" / "a.png")
    return root


@pytest.mark.parametrize(
    "key, value, message",
    [
        (
            "augment.recipe",
            "cutmx",
            "config.augment.recipe is 'cutmx'; it must be one of none, cutout, mixup, "
            "cutmix, saliencymix",
        ),
        ("augment.alpha", "0", "config.augment.alpha is 0.0; it must be above 0"),
        ("augment.alpha", "nan", "config.augment.alpha is nan"),
        ("augment.group", "3", "config.augment.group is 3; it must divide"),
        (
            "augment.crop_area",
            "0",
            "config.augment.crop_area is 0.0; it must be in (0,",
        ),
        ("augment.crop_area", "1.5", "config.augment.crop_area is 1.5"),
        ("model.name", "resnet51", "one of resnet18, resnet34, resnet50, resnet101"),
        ("model.name", "upernet", "config.model.name is 'upernet'"),
        ("model.weights", "x", "training starts from random weights"),
        ("data.path", "/nowhere", "/nowhere/train does not exist"),
        ("data.path", "", "needs config.data.path"),
        ("data.source", "broden", "has no classes"),
        ("data.batch_size", "0", "config.data.batch_size is 0"),
        ("train.split", "nosuch", "/nosuch does not exist"),
        ("train.split", "empty", "class folders without images: cat"),
        ("train.split", "nothing", "/nothing has no image files"),
        ("train.split", "flat", "an image outside class folders, a.png"),
        ("train.split", "one", "only one class to train on, red"),
        ("train.validation_split", "nosuch", "/nosuch does not exist"),
        ("train.validation_split", "other", "does not know: purple; it knows blue,"),
        ("train.batch_size", "64", "there are 40 training images, fewer than"),
        ("train.bn_group", "3", "these fit: 1, 2, 4, 8"),
        ("train.bn_group", "0", "config.train.bn_group is 0"),
        ("train.milestones", "3,2", "config.train.milestones is"),
        ("train.epochs", "0", "config.train.epochs is 0"),
        ("train.image_size", "8", "config.train.image_size is 8"),
        ("train.canvas", "20", "config.train.canvas is 20"),
        ("train.last_stride", "3", "config.train.last_stride is 3; it must be 1 or 2"),
        ("train.learning_rate", "0", "config.train.learning_rate is 0.0"),
        ("train.num_images", "-1", "config.train.num_images is -1"),
        ("train.stem_pool", "False", "unknown key config.train.stem_pool"),
        ("dtype", "float16", "float32, bfloat16"),
        ("parallel", "threads", "shard_map, pmap"),
    ],
)
def test_bad_values(capsys, odd_folders, tmp_path, key, value, message):
    workdir = tmp_path / "run"
    change = f"--config.{key}={value}"
    arguments = [*command(odd_folders, "resnet18"), change, f"--workdir={workdir}"]
    code, _, error = run(capsys, train, *arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1 and "Traceback" not in error
    assert not workdir.exists()


def test_bad_scenes(capsys, tmp_path):
    arguments = ["--config=configs/baseline.py", f"--workdir={tmp_path / 'run'}"]
    for change, message in (
        ("train.split=probes", "config.train.split: scenes (version"),
        ("train.validation_split=x", "config.train.validation_split: scenes (version"),
        ("data.path=/nowhere", "config.data.path: /nowhere does not exist"),
    ):
        code, _, error = run(capsys, train, *arguments, f"--config.{change}")
        assert code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_batch_that_devices_cannot_share(
    class_folders, tiny, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(train_classifier, "all_devices", lambda mode: [None] * 4)
    arguments = [*command(class_folders), f"--workdir={tmp_path / 'run'}"]
    for size, would in ((10, "; use 8 or 12"), (3, "; use 4")):
        change = f"--config.train.batch_size={size}"
        code, _, error = run(capsys, train, *arguments, change)
        assert code == 2 and error.count("\n") == 1
        assert f"config.train.batch_size is {size}, which 4 devices cannot" in error
        assert would in error


def test_groups_that_devices_cannot_share():
    from jdissect.configs.common import get_common

    from jdissect.training.settings import check_batch

    config = get_common()
    check_batch(config, 8)
    config.train.batch_size = 192
    config.train.bn_group = 5
    with pytest.raises(UserError, match="1, 2, 3, 4, 6, 8, 12, 24, 48, 96, 192"):
        check_batch(config, 8)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_another_directory_is_left_alone(
    capsys, class_folders, tiny, tmp_path, overwrite
):
    (tmp_path / "letter.txt").write_text("dear")
    arguments = [*command(class_folders), f"--workdir={tmp_path}", *overwrite]
    code, _, error = run(capsys, train, *arguments)
    assert code == 2 and "not a training run" in error
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_workdir_that_cannot_be_written(capsys, class_folders, tiny, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for workdir, message in (
        (file, "is a file"),
        (file / "run", "cannot be written: Not a directory"),
        (Path("/proc/run"), "/proc/run cannot be written"),
    ):
        arguments = [*command(class_folders), f"--workdir={workdir}"]
        code, _, error = run(capsys, train, *arguments)
        assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is damaged; give another --workdir"),
        ('{"format_version": 1}', "is damaged"),
        (
            '{"format_version": 99, "status": "", "result": 0, "identity": {}}',
            "has format version 99, but this program reads 1",
        ),
    ],
)
def test_a_directory_of_another_kind(
    capsys, class_folders, tiny, tmp_path, content, message
):
    (tmp_path / "training.json").write_text(content)
    arguments = [*command(class_folders), f"--workdir={tmp_path}"]
    code, _, error = run(capsys, train, *arguments)
    assert code == 2 and message in error and error.count("\n") == 1
