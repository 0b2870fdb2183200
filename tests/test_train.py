"""Training from the command line: what it leaves behind, on folders and TFDS."""

import io
import json
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jdissect import evaluate, main, train
from jdissect.checkpoints import networks
from jdissect.checkpoints.run_state import Checkpoints
from tests.small_trainings import STEPS, command, finish, metrics, run, weights


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of the user's cache is read or written."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


class Terminal(io.StringIO):
    """Standard error as a person has it."""

    def isatty(self):
        return True


def test_64_bit_mode_changes_nothing(trained, class_folders, tiny, tmp_path, capsys):
    arguments = [*command(class_folders), f"--workdir={tmp_path / 'run'}"]
    with jax.enable_x64(True):
        code, _, error = run(capsys, train, *arguments)
    assert code == 0, error
    assert weights(tmp_path / "run") == weights(trained[0])


def test_run_directory(trained):
    folder, output = trained
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "training.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
    }
    found = metrics(folder)
    steps = [record for record in found if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 3 * STEPS + 1))
    assert [record["epoch"] for record in steps] == [1] * 5 + [2] * 5 + [3] * 5
    rates = [record["lr"] for record in steps]
    assert rates == [0.02] * 5 + [0.002] * 5 + [0.0002] * 5
    errors = [record for record in found if "top1_error" in record]
    assert [record["step"] for record in errors] == [5, 10, 15]
    assert all(record["top5_error"] == 0 for record in errors)
    assert all(0 <= record["top1_error"] <= 100 for record in errors)
    assert Checkpoints(folder / "checkpoints").steps() == [14, 15]
    training = json.loads((folder / "training.json").read_text())
    assert training["status"] == "finished"
    assert training["result"]["top1_error"] == errors[-1]["top1_error"]
    assert f"{errors[-1]['top1_error']:.2f} %" in output
    assert "epoch 3/3" in output


@pytest.mark.parametrize(
    "name", ["tiny", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_the_network_is_a_checkpoint(
    trained, tiny, capsys, class_folders, tmp_path, name
):
    """Loads, is as good as was said, and can be dissected."""
    folder = trained[0] if name == "tiny" else tmp_path / "run"
    if name != "tiny":
        finish(command(class_folders, name), folder)
    model = networks.load_classifier(folder / "model", name)
    assert model.classes == 3 and model.input_size == 32
    width = {} if name == "tiny" else {"width": 8}
    assert model.architecture == {"name": name, "classes": 3, **width}
    source = networks.read_description(folder / "model")["source"]
    assert source["classes"] == ["blue", "green", "red"] and source["steps"] == 15
    assert source["config"]["augment"]["recipe"] == "mixup"
    options = [
        "--config=configs/mixup.py:imagenet",
        f"--config.model.name={name}",
        f"--config.model.weights={folder / 'model'}",
        "--config.data.source=folder",
        "--config.data.batch_size=8",
        "--config.train.image_size=32",
    ]
    data = f"--config.data.path={class_folders / 'validation'}"
    output = tmp_path / "errors.json"
    split = "--config.data.split="
    code, _, error = run(capsys, evaluate, *options, data, split, f"--output={output}")
    assert code == 0, error
    found = json.loads(output.read_text())
    assert found["images"] == 15
    np.testing.assert_allclose(
        found["top1_error"], metrics(folder)[-1]["top1_error"], atol=1e-9
    )
    layer = model.endpoint_names[-1]
    dissected = tmp_path / "dissected"
    code, _, error = run(
        capsys,
        main,
        *options,
        data,
        f"--config.model.layers={layer},",
        "--config.segmenter.name=colornames",
        f"--workdir={dissected}",
    )
    assert code == 0, error
    assert json.loads((dissected / "summary.json").read_text())["images"] == 15
    assert (dissected / layer / "units.csv").is_file()


def test_the_same_command_again(trained, tiny, capsys, class_folders):
    folder, output = trained
    arguments = [*command(class_folders), f"--workdir={folder}"]
    before = weights(folder)
    code, again, _ = run(capsys, train, *arguments)
    assert code == 0 and "is finished" in again
    assert output.splitlines()[-2] in again
    other = ["--config.train.seed=1", "--config.augment.crop_area=0.5"]
    code, _, error = run(capsys, train, *arguments, *other)
    assert code == 2 and error.count("\n") == 1
    assert "different: train.seed, augment.crop_area" in error
    assert weights(folder) == before


def test_progress_learning_and_overwrite(
    class_folders, tiny, capsys, tmp_path, monkeypatch
):
    """A network that learns: three colours are easy."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    arguments = [
        *(part for part in command(class_folders) if "milestones" not in part),
        f"--workdir={tmp_path / 'run'}",
        "--config.train.epochs=12",
        "--config.train.learning_rate=0.1",
        "--config.train.checkpoint_every=0",
    ]
    code, output, _ = run(capsys, train, *arguments)
    assert code == 0, terminal.getvalue()
    text = terminal.getvalue()
    # A bar that is over within a tenth of a second is drawn once.
    assert "epoch 1/12" in text and "0/40 [" in text and "img" in text
    assert "evaluation" in text and "0/15 [" in text
    found = metrics(tmp_path / "run")
    assert found[-1]["top1_error"] < 15, found[-1]
    assert f"top-1 error {found[-1]['top1_error']:.2f} %" in output
    before = weights(tmp_path / "run")
    short = [*arguments, "--config.train.epochs=1", "--config.train.seed=1"]
    code, _, _ = run(capsys, train, *short)
    assert code == 2
    code, _, _ = run(capsys, train, *short, "--overwrite")
    assert code == 0 and weights(tmp_path / "run") != before
    assert [record["step"] for record in metrics(tmp_path / "run")] == [
        1,
        2,
        3,
        4,
        5,
        5,
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set that TFDS prepares: pictures of two colours, one class each, and a
    split of unknown classes."""
    folder = tmp_path_factory.mktemp("tfds")

    class Colors(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "two_colors"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["dark", "light"])
            features = {"image": tfds.features.Image(), "label": label}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples(24),
                "validation": self._generate_examples(10),
                "test": self._generate_examples(8, unknown=True),
            }

        def _generate_examples(self, count, unknown=False):
            rng = np.random.default_rng(count)
            for index in range(count):
                label = index % 2
                pixels = rng.normal(60 + 120 * label, 30, (40 + index, 50, 3))
                file = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
                file.seek(0)
                yield index, {"image": file, "label": -1 if unknown else label}

    Colors(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def tfds_command(prepared, tiny):
    """A training on it."""
    return [
        *command(prepared),
        "--config.data.source=tfds",
        "--config.data.name=two_colors",
        "--config.train.epochs=2",
    ]


def test_tfds(tfds_command, capsys, tmp_path):
    folder = tmp_path / "run"
    code, output, error = run(capsys, train, *tfds_command, f"--workdir={folder}")
    assert code == 0, error
    assert "6 steps, 2 classes" in output and "on 10 images" in output
    source = networks.read_description(folder / "model")["source"]
    assert source["classes"] == ["dark", "light"]
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "change, message",
    [
        (
            ["--config.data.name=imagenet2012"],
            'it with: python -c "import tensorflow_datasets as tfds; '
            "tfds.builder('imagenet2012', data_dir='{path}', "
            "file_format='array_record').download_and_prepare()\"",
        ),
        (["--config.data.name="], "needs config.data.name"),
        (
            ["--config.train.split=nosuch"],
            "config.train.split: data set two_colors has",
        ),
        (
            ["--config.train.validation_split=nosuch"],
            "config.train.validation_split: data set two_colors has no split 'nosuch'",
        ),
        (["--config.train.split=test"], "has label -1, outside 0 .. 1"),
    ],
)
def test_bad_tfds(tfds_command, prepared, capsys, tmp_path, change, message):
    workdir = f"--workdir={tmp_path / 'run'}"
    code, _, error = run(capsys, train, *tfds_command, *change, workdir)
    assert code == 2 and error.count("\n") == 1
    assert message.format(path=prepared) in error
