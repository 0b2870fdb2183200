"""The networks that come with the package, their manifest, and how they get there."""

import json
from pathlib import Path

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks, shipped
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime import command_line
from jdissect.training import ship_weights as converter
from tests.small_segmenters import draw

ARCHITECTURE = {"name": "resnet18", "width": 4, "classes": 3}
CLASSIFIERS = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
LIMIT = 25e6  # bytes of all weights


def trained(folder):
    """A checkpoint as a training leaves it; its parameters."""
    parameters = draw(ARCHITECTURE, 0)
    source = {
        "config": {"data": {"path": "/somewhere"}},
        "seed": 0,
        "steps": 3,
        "date": "2026-11-22",
        "classes": ["a", "b", "c"],
    }
    description = networks.describe_classifier(ARCHITECTURE, IMAGENET, source=source)
    networks.save(folder, parameters, description)
    return parameters


def test_a_network_is_shipped_with_half_of_the_bits(tmp_path):
    parameters = trained(tmp_path / "run")
    measured = []

    def measure(weights, config):
        measured.append(networks.load(weights)[0])
        return {"top1_error": 12.5}

    entry = converter.ship(tmp_path / "run", "some", measure, tmp_path / "weights")
    assert entry["kernels"] == "float16"
    assert entry["scores"] == {"top1_error": 12.5}
    assert entry["config"] == {"data": {"path": ""}}
    found, description = networks.load(tmp_path / "weights" / "some")
    assert description["source"] == {"classes": ["a", "b", "c"]}
    assert description["weights_sha256"] == entry["weights_sha256"]
    for name, array in parameters.items():
        rounded = array.astype(np.float16) if array.ndim > 1 else array
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], rounded.astype(np.float32))
        np.testing.assert_array_equal(measured[0][name], array)
        np.testing.assert_array_equal(measured[1][name], found[name])
    manifest = json.loads((tmp_path / "weights" / shipped.MANIFEST).read_text())
    assert manifest == {"some": entry}
    assert networks.load_classifier(tmp_path / "weights" / "some").classes == 3


def test_bits_stay_where_scores_need_them(tmp_path, capsys):
    parameters = trained(tmp_path / "run")
    scores = iter([{"top1_error": 12.5}, {"top1_error": 12.6}])
    entry = converter.ship(
        tmp_path / "run", "some", lambda *_: next(scores), tmp_path / "weights"
    )
    assert (entry["kernels"], entry["scores"]) == ("float32", {"top1_error": 12.5})
    assert "float16 changes top1_error 12.5 -> 12.6" in capsys.readouterr().out
    found, _ = networks.load(tmp_path / "weights" / "some")
    for name, array in parameters.items():
        np.testing.assert_array_equal(found[name], array)


def test_damaged_tensors_are_the_users_error(tmp_path):
    trained(tmp_path / "run")
    converter.ship(tmp_path / "run", "x", lambda *_: {}, tmp_path)
    path = tmp_path / "x" / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="differ from those that were written"):
        networks.load(tmp_path / "x")
    path.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        networks.load(tmp_path / "x")


def test_unknown_names_are_answered_with_those_that_are_there():
    with pytest.raises(UserError, match="no network 'mixdown'.*baseline, cutmix"):
        networks.load("shipped:mixdown")


def test_the_manifest_is_of_what_is_there():
    manifest = json.loads((shipped.FOLDER / shipped.MANIFEST).read_text())
    assert sorted(manifest) == sorted([*CLASSIFIERS, "upernet"]) == shipped.names()
    for name, entry in manifest.items():
        parameters, description = networks.load(f"shipped:{name}")
        assert entry["weights_sha256"] == description["weights_sha256"]
        assert entry["bytes"] == _weights(name).stat().st_size
        assert entry["steps"] > 0 and entry["date"] >= "2026-11-22"
        if name in CLASSIFIERS:
            assert entry["config"]["augment"]["recipe"] == name.replace(
                "baseline", "none"
            )
    assert sum(_weights(name).stat().st_size for name in manifest) < LIMIT
    # One budget for all five.
    assert len({manifest[name]["steps"] for name in CLASSIFIERS}) == 1
    configs = [manifest[name]["config"]["train"] for name in CLASSIFIERS]
    assert all(config == configs[0] for config in configs)
    assert manifest["upernet"]["scores"]["object_accuracy"] >= 85


def test_configs_train_what_is_shipped():
    manifest = json.loads((shipped.FOLDER / shipped.MANIFEST).read_text())
    for name in (*CLASSIFIERS, "upernet"):
        file = "segmenter" if name == "upernet" else name
        argv = ["", f"--config=configs/{file}.py"]
        config = command_line.parse(command_line.define(argv, {}, {}), argv).to_dict()
        config = json.loads(json.dumps(config))
        del config["train"]["metrics"]  # a key of later, which changes no number
        for part in ("train", "augment"):
            assert config[part] == manifest[name]["config"][part]
        weights = f"shipped:{name}" if name in CLASSIFIERS else ""
        assert config["model"]["weights"] == weights


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "upernet"])
def test_scores_are_those_of_the_weights(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = shipped.entry(f"shipped:{name}")
    found = converter.measure(f"shipped:{name}", entry["config"])
    # Another processor or version rounds otherwise: a picture or two in a thousand.
    assert found == pytest.approx(entry["scores"], abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS[1:])
def test_the_score_on_some_pictures_is_near(name, tmp_path, monkeypatch):
    """Of the networks whose weights another test compares with the manifest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = shipped.entry(f"shipped:{name}")
    train = {**entry["config"]["train"], "validation_images": 100}
    found = converter.measure(f"shipped:{name}", {**entry["config"], "train": train})
    assert found["images"] == 100
    error = entry["scores"]["top1_error"]
    deviation = (error * (100 - error) / 100) ** 0.5
    assert abs(found["top1_error"] - error) < 3 * deviation


def _weights(name) -> Path:
    return shipped.FOLDER / name / "weights.safetensors"
