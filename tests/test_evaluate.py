"""Top-1 and top-5 error from the command line."""

import json
import shutil

import numpy as np
import pytest
from jdissect.configs.common import get_common

from jdissect import evaluate, models
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.datasets.labelled import imagenet_wnids
from jdissect.evaluation.run import open_network
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime import command_line

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
    code = command_line.entry(evaluate.main, ["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="session")
def named_by_class(drawn, tmp_path_factory):
    """Drawn pictures named by wnid, and the top-1 and top-5 errors they are to have.

    The names are what the original network finds first (on five pictures), second to
    fifth, or not among its five: then it errs.
    """
    golden = drawn.parent
    ranks = np.load(golden / "efficientnet_scenes.npz")["ranked_classes"]
    wnids, folder = imagenet_wnids(), tmp_path_factory.mktemp("named")
    pictures = sorted((golden / "images").iterdir())
    places = [index % 3 * 3 for index in range(len(pictures))]
    for index, (path, place) in enumerate(zip(pictures, places, strict=True)):
        name = f"{wnids[ranks[index, place]]}_{path.name}"
        shutil.copy(path, folder / name)
    errors = [np.mean(np.array(places) >= most) for most in (1, 5)]
    return folder, [round(100 * error, 6) for error in errors]


@pytest.fixture
def command(lite0, named_by_class):
    """EfficientNet-Lite0 with its real weights on pictures named by wnid."""
    return [
        CONFIG,
        f"--config.model.weights={lite0}",
        "--config.data.source=folder",
        f"--config.data.path={named_by_class[0]}",
    ]


def test_real_weights_err_as_the_original(capsys, command, named_by_class, tmp_path):
    output = tmp_path / "errors.json"
    code, _, error = run(capsys, *command, f"--output={output}")
    assert code == 0, error
    found = json.loads(output.read_text())
    assert found["images"] == 12 and found["skipped"] == 0
    errors = [found["top1_error"], found["top5_error"]]
    assert errors == pytest.approx(named_by_class[1])


def test_real_weights_are_right_on_178_of_200(capsys, command, shared, tmp_path):
    """As the original in PyTorch is, on photographs."""
    output = tmp_path / "errors.json"
    path = f"--config.data.path={shared / 'data' / 'imagenet_sample'}"
    code, text, _ = run(capsys, *command, path, f"--output={output}")
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
        (["--config.data.source=broden"], "has no classes; use folder"),
        (["--config.data.path=/nowhere"], "/nowhere does not exist"),
        (
            ["--config.data.path=FOLDERS"],
            "images have 2 classes, with labels 0 .. 1",
        ),
        (["--config.data.num_images=-1"], "num_images is -1"),
        (["--config.dtype=float16"], "float32, bfloat16"),
        (["--config.data.batch_size=0"], "config.data.batch_size is 0"),
    ],
)
def test_bad_input(capsys, command, drawn, tmp_path, change, message):
    picture = next((drawn.parent / "images").iterdir()).read_bytes()
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture)
    change = [argument.replace("FOLDERS", str(tmp_path)) for argument in change]
    code, _, error = run(capsys, *command, *change)
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_backbone_without_classifier_is_refused(tmp_path):
    architecture = {"name": "resnet18", "width": 2, "classes": 0}
    shapes = models.shapes(models.build_abstract(**architecture))
    parameters = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    description = networks.describe_classifier(architecture, IMAGENET)
    networks.save(tmp_path / "backbone", parameters, description)
    config = get_common()
    config.model.name, config.model.weights = "", str(tmp_path / "backbone")
    with pytest.raises(UserError, match="backbone has no classifier: it can be diss"):
        open_network(config)
    assert config.model.name == "resnet18"
