"""Rotated layers and untrained networks, as a user meets them."""

import json

import numpy as np
import pytest

import jdissect
from jdissect import main
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.configs import common
from jdissect.jobs import baselines, units
from jdissect.runtime import command_line
from jdissect.training.initialization import initial_parameters


@pytest.fixture
def command(tiny_classifier, drawn, little_optimized, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JDISSECT_PROGRESS", "0")  # no lines beside errors
    config = "--config=efficientnet_lite0"
    images = [f"--config.data.path={drawn}", "--config.data.num_images=8"]
    more = ["--config.data.batch_size=4", "--config.report=False"]
    return [config, *tiny_classifier, *images, *more]


def run(*arguments):
    return command_line.entry(main.main, ["main", *map(str, arguments)])


def identity_of(folder):
    return json.loads((folder / "summary.json").read_text())["identity"]


def test_a_rotation_is_orthogonal_and_uniform():
    matrix = baselines.rotation(48, 0, "layer4").arrays["encoder"]
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(48), atol=2e-6)
    # Haar's measure has E[tr Q] = 0 and E[(tr Q)^2] = 1; LAPACK's signs alone do not:
    # they make most of the diagonal negative.
    several = [
        baselines.rotation(6, seed, "layer4").arrays["encoder"] for seed in range(400)
    ]
    trace = np.trace(several, axis1=1, axis2=2)
    assert abs(trace.mean()) < 0.2 and 0.75 < (trace**2).mean() < 1.25
    assert 0.4 < np.mean([each[0, 0] > 0 for each in several]) < 0.6


def test_a_rotation_depends_on_seed_and_layer_only():
    first = baselines.rotation(20, 1, "layer4")
    assert first.sha256 == baselines.rotation(20, 1, "layer4").sha256
    others = [baselines.rotation(20, 2, "layer4"), baselines.rotation(20, 1, "layer3")]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 3


def test_a_layer_too_large_to_rotate():
    with pytest.raises(UserError, match="layer 'x' has 1,000,000 units, more than"):
        baselines.rotation(10**6, 0, "x")


def test_a_config_rotates_every_layer():
    config = common.get_common()
    assert baselines.identity(config, {}) == {}
    config.model.layers = ("layer3", "layer4")
    config.model.baseline, config.model.baseline_seed = "rotation", 3
    views = units.open_views(config, lambda: {"layer3": 6, "layer4": 12})
    parts = baselines.identity(config, views.codes)
    assert (parts["model.baseline"], parts["model.baseline_seed"]) == ("rotation", 3)
    assert units.identity(views) == {} and set(parts["model.rotation"]) == {
        *config.model.layers
    }
    for layer, features in {"layer3": 6, "layer4": 12}.items():
        expected = baselines.rotation(features, 3, layer).arrays["encoder"]
        np.testing.assert_array_equal(views.arrays[layer]["encoder"], expected)
        # Lengths stay, and so do angles.
        vectors = np.random.default_rng(0).normal(size=(5, features)).astype("f4")
        turned = views.step()(None, {layer: vectors}, views.arrays)[layer]
        np.testing.assert_allclose(
            turned @ turned.T, vectors @ vectors.T, rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_a_rotated_run_is_one_of_directions(command, tmp_path):
    """As with `config.model.units` of the same matrix; and part of the identity."""
    import safetensors.numpy

    plain, rotated, given = (tmp_path / name for name in ("plain", "rotated", "given"))
    assert run(*command, f"--workdir={plain}") == 0
    rotation = ["--config.model.baseline=rotation", "--config.model.baseline_seed=3"]
    assert run(*command, *rotation, f"--workdir={rotated}") == 0
    features = len(jdissect.load(plain / "layer4").thresholds)
    codes = baselines.rotation(features, 3, "layer4")
    file = tmp_path / "units.safetensors"
    safetensors.numpy.save_file(dict(codes.arrays), file, {"activation": "linear"})
    assert run(*command, f"--config.model.units={file}", f"--workdir={given}") == 0
    first, second = (jdissect.load(folder / "layer4") for folder in (rotated, given))
    for name in ("thresholds", "intersection", "union", "top_value"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.thresholds != jdissect.load(plain / "layer4").thresholds).any()
    before, after = identity_of(plain), identity_of(rotated)
    assert {key: after[key] for key in after if key not in before} == {
        "model.baseline": "rotation",
        "model.baseline_seed": 3,
        "model.rotation": {"layer4": codes.sha256},
    }
    assert {key: after[key] for key in before} == before


@pytest.mark.slow
def test_an_untrained_run(command, tmp_path):
    """Its network has the recipe's initial parameters; a default folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(*command, "--config.model.baseline=untrained") == 0
    folder = tmp_path / "runs" / "efficientnet_lite0-untrained"
    found = identity_of(folder)
    assert found["model.baseline"] == "untrained" and "model.rotation" not in found
    assert jdissect.load(folder / "layer4").iou.max() > 0


def test_untrained_parameters_are_those_of_the_recipe(tiny_classifier):
    weights = tiny_classifier[0].partition("=")[2]
    trained = networks.load_classifier(weights, fold=True)
    first, again, other = (
        baselines.untrained(trained, seed, "float32") for seed in (5, 5, 6)
    )
    hashes = [m.weights_sha256 for m in (trained, first, again, other)]
    assert len(set(hashes)) == 3 and hashes[1] == hashes[2]
    kernel = initial_parameters(trained.architecture, 5)["fc.kernel"]
    np.testing.assert_array_equal(first.params["fc"]["kernel"][...], kernel)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.model.baseline=turned"], "must be rotation, untrained, or ''"),
        (
            ["--config.model.baseline=rotation", "--config.model.units=x.safetensors"],
            "leave config.model.units empty",
        ),
        (
            ["--config.model.baseline=untrained", "--config.model.python=a:b"],
            "let the function of config.model.python return an untrained one",
        ),
        (
            ["--config.model.baseline=rotation", "--config.model.baseline_seed=-1"],
            "config.model.baseline_seed is -1; it must be",
        ),
    ],
)
def test_refusals(command, tmp_path, capsys, arguments, message):
    assert run(*command, *arguments, f"--workdir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
