"""Top-1 and top-5 error from the command line."""

import json

import numpy as np
import pytest

from configs.common import get_common
from jdissect import checkpoints, cli, evaluate, models
from jdissect.errors import UserError
from jdissect.models.preprocess import IMAGENET
from jdissect.training.runner import open_network

CONFIG = "--config=configs/efficientnet_lite0.py"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of the user's cache is read or written."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = cli.entry(evaluate.main, ["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def command(lite0, shared):
    """EfficientNet-Lite0 with its real weights on photographs named by wnid."""
    return [
        CONFIG,
        f"--config.model.weights={lite0}",
        "--config.data.source=folder",
        f"--config.data.path={shared / 'data' / 'imagenet_sample'}",
    ]


def test_real_weights_are_right_on_178_of_200(capsys, command, tmp_path):
    """As the original in PyTorch (ORIGINALS section 7)."""
    output = tmp_path / "errors.json"
    code, text, _ = run(capsys, *command, f"--output={output}")
    assert code == 0
    assert "22 of 200" in text and "11.00 %" in text and "top-5" in text
    found = json.loads(output.read_text())
    assert found["images"] == 200 and found["skipped"] == 0
    assert found["top1_error"] == 11.0 and found["top5_error"] < 5
    low, high = found["top1_interval"]
    assert 7 < low < 11 < high < 17


@pytest.mark.parametrize(
    "change, message",
    [
        (["--config.model.weights="], "config.model.weights is not set"),
        (["--config.model.name=resnet50"], "holds a efficientnet_lite0"),
        (["--config.model.name=vit"], "must be one of resnet18, resnet34, resnet50"),
        (["--config.data.source=broden"], "has no classes; it can be folder"),
        (["--config.data.path=/nowhere"], "/nowhere does not exist"),
        (
            ["--config.data.path=FOLDERS"],
            "images are of 2 classes, their labels 0 .. 1",
        ),
        (["--config.data.num_images=-1"], "-1 images cannot be taken"),
        (["--config.dtype=float16"], "float32, bfloat16"),
        (["--config.data.batch_size=0"], "config.data.batch_size is 0"),
    ],
)
def test_bad_input(capsys, command, shared, tmp_path, change, message):
    photograph = next((shared / "data" / "imagenet_sample").iterdir()).read_bytes()
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(photograph)
    change = [argument.replace("FOLDERS", str(tmp_path)) for argument in change]
    code, _, error = run(capsys, *command, *change)
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_backbone_without_classifier_is_refused(tmp_path):
    architecture = {"name": "resnet18", "width": 2, "classes": 0}
    shapes = models.shapes(models.build_abstract(**architecture))
    parameters = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    description = checkpoints.describe_classifier(architecture, IMAGENET)
    checkpoints.save(tmp_path / "backbone", parameters, description)
    config = get_common()
    config.model.name, config.model.weights = "", str(tmp_path / "backbone")
    with pytest.raises(UserError, match="backbone has no classifier: it can be diss"):
        open_network(config)
    assert config.model.name == "resnet18"
