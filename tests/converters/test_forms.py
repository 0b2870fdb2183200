"""Networks of other forms than torchvision's classifiers of colour photographs."""

import jax
import numpy as np
import pytest
import torch
from jdissect.converters.twins.efficientnet_lite import (
    EfficientNetLite0,
    TimmEfficientNetLite0,
)
from jdissect.converters.twins.resnet import ResNet
from PIL import Image

from jdissect import models
from jdissect.checkpoints import networks
from jdissect.converters import efficientnet_lite, resnet, verify
from jdissect.models.preprocess import GREY, IMAGENET, Preprocessing, normalize
from tests.compiling import QUICKLY

CIFAR = {"stem_kernel": 3, "stem_stride": 1, "stem_pool": False}


def assert_is_twin(folder, twin, endpoints, channels=3, size=32):
    """The maps of these endpoints, or of all and the logits (None), are the twin's."""
    images = np.random.default_rng(0).normal(size=(2, size, size, channels))
    images = images.astype(np.float32)
    model = networks.load_classifier(folder)
    run = jax.jit(
        lambda params, images: model.apply(params, images, endpoints),
        compiler_options=QUICKLY,
    )
    logits, maps = jax.device_get(run(model.params, images))
    with torch.inference_mode():
        theirs = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    if endpoints is None:
        np.testing.assert_allclose(logits, theirs[0], rtol=1e-3, atol=1e-3)
    for name in endpoints or theirs[1]:
        expected = theirs[1][name].numpy().transpose(0, 2, 3, 1)
        assert maps[name].shape == expected.shape
        error = np.abs(maps[name] - expected).max() / np.abs(expected).max()
        assert error < 1e-4, name


# depth, options, flags, what is said, endpoints to compare
FORMS = {
    "3x3": (
        18,
        CIFAR,
        (),
        "stride 1 and no max pool are assumed",
        ("layer1",),
    ),
    "3x3 said": (
        18,
        {"stem_kernel": 3, "stem_stride": 2, "stem_pool": True},
        ("--stem_stride=2", "--stem_pool"),
        "",
        ("stem",),
    ),
    "7x7 without pool": (18, {"stem_pool": False}, ("--nostem_pool",), "", ("stem",)),
    "grey": (18, {"in_channels": 1}, (), "images are turned to grey", ("stem",)),
    "no classifier": (
        18,
        {"classes": 0},
        (),
        "there is no classifier, fc.weight",
        ("stem",),
    ),
    "ResNeXt": (50, {"groups": 4, "width_per_group": 2}, (), "", ("layer2",)),
    "wide": (50, {"groups": 1, "width_per_group": 8}, (), "", ("layer2",)),
}


@pytest.mark.parametrize("form", FORMS)
def test_resnets_of_other_forms(form, draw_state, convert):
    depth, options, flags, note, endpoints = FORMS[form]
    twin = ResNet(depth, width=4, **{"classes": 3, **options})
    state = draw_state(twin)
    twin.load_state_dict(state)
    done = convert(resnet, state, *flags)
    assert done.code == 0, done.err
    assert note in done.out
    assert note or "assumed" not in done.out
    description = networks.read_description(done.folder)
    expected = {"name": f"resnet{depth}", "width": 4, "classes": 3, **options}
    if options.get("stem_stride") == 2:  # what is usual is not named
        del expected["stem_stride"], expected["stem_pool"]
    assert description["architecture"] == expected
    channels = options.get("in_channels", 3)
    assert_is_twin(done.folder, twin, endpoints, channels)
    found = Preprocessing.from_json(description["preprocessing"])
    assert found == (GREY if channels == 1 else IMAGENET)


@pytest.mark.slow
def test_verify_compares_other_forms(draw_state, convert, monkeypatch):
    monkeypatch.setattr(verify, "SIDE", 64)
    options = {"width": 4, "classes": 0, "in_channels": 1, **CIFAR}
    done = convert(resnet, draw_state(ResNet(18, **options)), "--verify")
    assert done.code == 0, done.err
    table = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert float(table["layer4"][2]) < 1e-4
    assert "logits" not in table


def test_grey_is_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L")) / 255
    actual = normalize(pixels[None], GREY)
    assert actual.shape == (1, 40, 50, 1)
    np.testing.assert_allclose(
        actual[0, :, :, 0], (expected - 0.449) / 0.226, rtol=1e-5, atol=1e-6
    )


def test_mean_and_std_are_said(small_resnet, convert):
    flags = ("--mean=0.49,0.48,0.45", "--std=0.25,0.24,0.26")
    done = convert(resnet, small_resnet, *flags)
    assert done.code == 0, done.err
    found = networks.read_description(done.folder)["preprocessing"]
    assert found == {
        "mean": [0.49, 0.48, 0.45],
        "std": [0.25, 0.24, 0.26],
        "scale": 1 / 255,
    }
    for flags, words in (
        (["--mean=0.5,0.5,0.5"], "give both --mean and --std"),
        (["--mean=0.5", "--std=1,1,1"], "--mean=0.5 is not 3 numbers in 0 .. 1"),
        (["--mean=a,b,c", "--std=1,1,1"], "--mean=a,b,c is not 3 numbers"),
        (["--mean=0,0,0", "--std=0,1,1"], "--std=0,1,1 must be above 0"),
    ):
        done = convert(resnet, small_resnet, "--overwrite", *flags)
        assert (done.code, words in done.err) == (2, True), done.err


def renamed(state, *pairs):
    for old, new in pairs:
        state = {
            (new + k.removeprefix(old) if k.startswith(old) else k): v
            for k, v in state.items()
        }
    return state


NAMES = {
    "linear and shortcut": lambda state: renamed(
        {k.replace("downsample", "shortcut"): v for k, v in state.items()},
        ("fc.", "linear."),
    ),
    "dropout": lambda state: renamed(state, ("fc.", "fc.1.")),
    "numbered": lambda state: renamed(
        state,
        ("conv1.", "features.0."),
        ("bn1.", "features.1."),
        *((f"layer{n}.", f"features.{n + 3}.") for n in (1, 2, 3, 4)),
        ("fc.", "features.9."),
    ),
}


@pytest.mark.parametrize("names", NAMES)
def test_other_names_of_the_same_network(names, small_resnet, convert):
    expected = convert(resnet, small_resnet)
    digest = networks.read_description(expected.folder)["weights_sha256"]
    done = convert(resnet, NAMES[names](small_resnet), "--overwrite")
    assert done.code == 0, done.err
    assert networks.read_description(done.folder)["weights_sha256"] == digest


def test_a_head_of_several_layers_is_left_out(small_resnet, convert):
    """Of contrastive learning, such as MoCo v2's."""
    state = renamed(small_resnet, ("fc.", "fc.2."))
    state |= {"fc.0.weight": torch.ones(8, 32), "fc.0.bias": torch.ones(8)}
    done = convert(resnet, state)
    assert done.code == 0, done.err
    assert "left out a head of several layers, fc.2.weight, fc.2.bias" in done.out
    assert networks.load_classifier(done.folder).classes == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"conv1.0.weight": (4, 3, 3, 3)},
            "ResNet-C, -D and -T, such as timm's resnet26d",
        ),
        ({"layer2.0.downsample.1.weight": (8, 4, 1, 1)}, "pooling in its shortcuts"),
        ({"layer1.0.se.fc1.weight": (2, 4, 1, 1)}, "SE- and ECA-ResNets are not"),
        ({"conv1.weight": (4, 4, 7, 7)}, "takes images of 4 channels"),
        ({"conv1.weight": (4, 3, 5, 5)}, "has a stem of 5x5"),
        ({"layer1.0.conv2.weight": (8, 1, 3, 3)}, "which is grouped"),
    ],
)
def test_what_is_not_supported_is_said_plainly(changes, words, small_resnet, convert):
    changed = {name: torch.ones(shape) for name, shape in changes.items()}
    done = convert(resnet, small_resnet | changed)
    assert done.code == 2
    assert words in done.err
    if "upernet" in done.err:
        raise AssertionError("a classifier is sent to the segmenters' converters")


def test_three_stages_are_named(small_resnet, convert):
    state = {k: v for k, v in small_resnet.items() if not k.startswith("layer4")}
    done = convert(resnet, state)
    assert (
        "no blocks named layer1 to layer4 but only layer1, layer2, layer3" in done.err
    )


@pytest.mark.parametrize("same", [pytest.param(False, marks=pytest.mark.slow), True])
def test_timm_lite0(same, draw_state, convert):
    twin = TimmEfficientNetLite0(same, classes=3)
    state = draw_state(twin)
    twin.load_state_dict(state)
    flags = ["--timm_model=tf_efficientnet_lite0"] if same else []
    done = convert(efficientnet_lite, state, *flags)
    assert done.code == 0, done.err
    assert ("(--timm_model=tf_efficientnet_lite0)" in done.out) == (not same)
    description = networks.read_description(done.folder)
    padding = {} if same else {"padding": "symmetric"}
    assert description["architecture"] == {
        "name": "efficientnet_lite0",
        "classes": 3,
        **padding,
    }
    mean = [0.5] * 3 if same else list(IMAGENET.mean)
    assert description["preprocessing"]["mean"] == mean
    assert_is_twin(done.folder, twin, ("block3",), size=33)


def test_timms_names_are_the_same_network(draw_state):
    """The two twins agree, so that either is a witness for the other."""
    theirs, timm = EfficientNetLite0(classes=2), TimmEfficientNetLite0(True, classes=2)
    shapes = models.shapes(models.build_abstract("efficientnet_lite0", classes=2))
    state = draw_state(theirs)
    from_port = {t.parameter: k for k, t in efficientnet_lite.mapping().items()}
    mapping = efficientnet_lite.timm_mapping()
    assert {target.parameter for target in mapping.values()} == shapes.keys()
    theirs.load_state_dict(state)
    timm.load_state_dict(
        {name: state[from_port[target.parameter]] for name, target in mapping.items()},
        strict=False,
    )
    images = torch.randn(1, 3, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, actual = theirs.eval()(images)[0], timm.eval()(images)[0]
    torch.testing.assert_close(actual, expected)


def test_larger_lites_and_backbones(draw_state, convert):
    state = draw_state(TimmEfficientNetLite0(False, classes=0))
    done = convert(efficientnet_lite, state)
    assert done.code == 0, done.err
    assert "there is no classifier, classifier.weight" in done.out
    assert networks.load_classifier(done.folder).classes == 0
    more = {f"blocks.2.{n}.conv_dw.weight": torch.ones(1) for n in range(2, 4)}
    done = convert(efficientnet_lite, state | more, "--overwrite")
    assert "has 18 blocks, more than the 16 of EfficientNet-Lite0" in done.err
