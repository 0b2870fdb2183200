"""Networks converted as any module equal those written for JAX by hand."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jdissect
from jdissect.checkpoints import networks
from jdissect.converters import resnet
from jdissect.datasets.broden import open_broden
from jdissect.models.preprocess import LITE

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def converted(module, layers, folder, preprocessing=None, size=(224, 224)):
    jdissect.convert_torch(
        *(module, torch.zeros(1, 3, *size), layers, folder),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        tell=lambda line: None,
    )
    if preprocessing is not None:  # one that mean and std from 0 to 1 round
        content = json.loads((folder / "model.json").read_text())
        content["preprocessing"] = preprocessing.to_json()
        (folder / "model.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def any_lite0(lite0_file, tmp_path_factory):
    from tests import twins_as_modules

    module = twins_as_modules.efficientnet_lite0(lite0_file)
    names = ["stem", "block0", "block5", "block10", "block15", "head"]
    folder = tmp_path_factory.mktemp("any") / "lite0"
    return converted(module, names, folder, LITE)


@pytest.fixture(scope="session")
def resnets(published, tmp_path_factory):
    """ResNet-50 with weights by rule: (written by hand, converted as any module)."""
    from tests import twins_as_modules

    file = published / "resnet50" / "torchvision.pth"
    folder = tmp_path_factory.mktemp("resnets")
    flags = [f"--checkpoint={file}", f"--output={folder / 'hand'}"]
    assert resnet.main(["resnet", *flags]) == 0
    module = twins_as_modules.resnet50(torch.load(file, weights_only=True))
    names = ["stem", "layer1", "layer2", "layer3", "layer4"]
    return folder / "hand", converted(module, names, folder / "any")


def compare(by_hand, any_):
    """Largest difference of logits and layers, relative to the largest value."""
    first, second = map(networks.load_classifier, (by_hand, any_))
    shape = (4, 224, 224, 3)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    outputs = []
    for model in (first, second):
        run = jax.jit(lambda p, x, apply=model.apply: apply(p, x))
        logits, maps = run(model.params, images)
        outputs.append({"logits": logits, **maps})
    differences = {}
    for name, found in outputs[1].items():
        expected = np.asarray(outputs[0][name])
        largest = np.abs(expected).max()
        differences[name] = float(np.abs(np.asarray(found) - expected).max() / largest)
    return differences


def test_lite0(lite0, any_lite0):
    differences = compare(lite0, any_lite0)
    assert len(differences) == 7 and max(differences.values()) <= 1e-5, differences


def test_resnet50(resnets):
    differences = compare(*resnets)
    assert len(differences) == 6 and max(differences.values()) <= 1e-5, differences


@pytest.mark.timing
@pytest.mark.parametrize("network", ["lite0", "resnet50"])
def test_it_takes_as_long(network, request):
    if network == "lite0":
        folders = [request.getfixturevalue(name) for name in ("lite0", "any_lite0")]
    else:
        folders = request.getfixturevalue("resnets")
    images = np.zeros((8, 224, 224, 3), np.float32)
    seconds = []
    for folder in folders:
        model = networks.load_classifier(folder)
        last = model.endpoint_names[-1]
        run = jax.jit(lambda p, x, m=model, last=last: m.apply(p, x, last)[1][last])
        times = []
        for _ in range(4):
            start = time.process_time()
            jax.block_until_ready(run(model.params, images))
            times.append(time.process_time() - start)
        seconds.append(min(times))
    assert seconds[1] <= 1.25 * seconds[0], seconds


def test_the_dissection_of_lite0_is_the_same(
    lite0, lite0_file, annotated_images, tmp_path
):
    """Every unit, 554 of them detectors on the street: the maps are the same bits."""
    from tests import twins_as_modules

    module = twins_as_modules.efficientnet_lite0(lite0_file)
    size = open_broden(str(annotated_images)).image_shape
    any_lite0 = converted(module, ["head"], tmp_path / "lite0", LITE, size)
    found = []
    for name, folder in (("by hand", lite0), ("any", any_lite0)):
        command = [
            *(sys.executable, "-m", "jdissect.main"),
            *("--config=efficientnet_lite0", "--config.model.name="),
            f"--config.model.weights={folder}",
            f"--config.data.path={annotated_images}",
            "--config.report=False",
            f"--workdir={tmp_path / name}",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(np.load(tmp_path / name / "head/dissection.npz"))
    by_hand, any_ = found
    other = any_["thresholds"] != by_hand["thresholds"]
    other |= (any_["intersection"] != by_hand["intersection"]).any(axis=1)
    assert not other.any(), np.flatnonzero(other)
    if "street" in annotated_images.name:
        assert (any_["iou"].max(axis=1) > 0.04).sum() == 554
