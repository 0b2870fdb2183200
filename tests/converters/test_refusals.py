"""What converters refuse, what they say, and that nothing is left behind."""

import argparse
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from jdissect.converters.twins.efficientnet_lite import EfficientNetLite0

from jdissect.checkpoints import networks
from jdissect.converters import efficientnet_lite, resnet


def save(folder, content, legacy=False):
    path = folder / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_missing_tensors_are_named(small_resnet, convert):
    for name in ("layer2.1.bn2.running_mean", "fc.bias"):
        del small_resnet[name]
    done = convert(resnet, small_resnet)
    assert done.code == 2
    assert "lacks 2 tensors: layer2.1.bn2.running_mean, fc.bias" in done.err


def test_many_missing_tensors_are_counted(small_resnet, convert):
    state = {k: v for k, v in small_resnet.items() if ".bn" not in k}
    done = convert(resnet, state)
    assert done.code == 2
    assert "lacks 64 tensors" in done.err
    assert "and 59 more" in done.err


def test_misshapen_tensors_are_named(small_resnet, convert):
    small_resnet["layer3.0.conv1.weight"] = torch.zeros(16, 8, 1, 1)
    done = convert(resnet, small_resnet)
    assert done.code == 2
    assert (
        "1 tensor: layer3.0.conv1.weight [16, 8, 1, 1], needed [16, 8, 3, 3]"
        in done.err
    )


def test_unknown_tensors_are_refused_unless_ignored(small_resnet, convert):
    extra = {"aux.weight": torch.ones(2), "aux.bias": torch.ones(2)}
    done = convert(resnet, small_resnet | extra)
    assert done.code == 2
    assert "has unknown 2 tensors: aux.bias, aux.weight" in done.err
    assert "--ignore" in done.err
    done = convert(resnet, small_resnet | extra, r"--ignore=^aux\.w")
    assert done.code == 2
    assert "has unknown 1 tensor: aux.bias" in done.err
    done = convert(resnet, small_resnet | extra, r"--ignore=^aux\.")
    assert done.code == 0, done.err
    assert "ignored 2 tensors: aux.weight, aux.bias" in done.out
    plain = convert(resnet, small_resnet, "--overwrite")
    assert plain.code == 0
    assert "ignored" not in plain.out


def test_ignore_never_drops_what_the_network_needs(small_resnet, convert):
    done = convert(resnet, small_resnet, "--ignore=.*")
    assert done.code == 0, done.err
    assert "ignored" not in done.out
    done = convert(resnet, small_resnet, "--ignore=(", "--overwrite")
    assert done.code == 2
    assert "--ignore=( is not a regular expression" in done.err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((5,), torch.nan), "fc.bias with infinite or undefined values"),
        (torch.tensor([1, torch.inf, 1, 1, 1]), "fc.bias with infinite or undefined"),
        (torch.ones(5, dtype=torch.int64), "fc.bias that are not floating-point"),
    ],
)
def test_bad_values_are_refused_by_name(value, words, small_resnet, convert):
    done = convert(resnet, small_resnet | {"fc.bias": value})
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, small_resnet, convert):
    state = {k: v.to(dtype) if v.is_floating_point() else v
             for k, v in small_resnet.items()}  # fmt: skip
    done = convert(resnet, state)
    assert done.code == 0, done.err
    parameters, _ = networks.load(done.folder)
    assert {array.dtype for array in parameters.values()} == {np.dtype("float32")}
    expected = state["fc.weight"].float().numpy().T
    np.testing.assert_array_equal(parameters["fc.kernel"], expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv3.weight": (8, 4, 3, 3)}, "deep stem"),
        ({"conv1.0.weight": (4, 3, 3, 3)}, "deep stem"),
        ({"layer1.0.conv2.weight": (8, 1, 3, 3)}, "not a plain ResNet.*grouped"),
        ({"layer1.0.conv2.weight": (8, 8, 3, 3)}, "not a plain ResNet.*wider"),
        ({"layer4.2.conv1.weight": (8, 8, 3, 3)}, "2-2-2-3 basic blocks"),
    ],
)
def test_other_resnets_are_refused(changes, words, small_resnet, convert):
    changed = {name: torch.zeros(shape) for name, shape in changes.items()}
    done = convert(resnet, small_resnet | changed)
    assert done.code == 2
    assert re.search(words, done.err), done.err


def test_the_other_network_is_refused(small_resnet, draw_state, convert):
    done = convert(efficientnet_lite, small_resnet)
    assert done.code == 2
    assert "not an EfficientNet-Lite" in done.err
    done = convert(resnet, draw_state(EfficientNetLite0(classes=2)))
    assert done.code == 2
    assert "not a ResNet" in done.err


class RunsCode:
    """Unpickling this touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_does_not_run(
    form, small_resnet, tmp_path, convert
):
    touched = tmp_path / "touched"
    content = {"state_dict": small_resnet, "best_err1": RunsCode(touched)}
    path = tmp_path / "weights.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(RunsCode(touched), protocol=2))
    else:
        save(tmp_path, content, legacy=form == "legacy")
    done = convert(resnet, path)
    assert done.code == 2
    assert "would run code" in done.err
    assert "system" in done.err
    assert not touched.exists()
    # The test can fail: an ordinary reader runs it.
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert touched.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_training_arguments_do_no_harm(legacy, small_resnet, convert):
    """torchvision's and timm's reference training keeps them beside the weights."""
    arguments = argparse.Namespace(lr=0.1, model="resnet18", milestones=[30, 60])
    content = {"model": small_resnet, "args": arguments, "epoch": 3}
    done = convert(resnet, content, legacy=legacy)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("value", "name"),
    [(pathlib.PurePosixPath("data"), "pathlib"), (types.SimpleNamespace(), "types")],
)
def test_no_other_class_is_let_in_with_them(value, name, small_resnet, convert):
    arguments = argparse.Namespace(data=value)
    done = convert(resnet, {"state_dict": small_resnet, "args": arguments})
    assert done.code == 2
    assert f"would run code ({name}." in done.err


@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_numbers_beside_the_weights_do_no_harm(small_resnet, convert, legacy):
    content = {
        "state_dict": {f"module.{k}": v for k, v in small_resnet.items()},
        "best_err1": np.float64(22.58),
        "best_err5": torch.tensor(6.4),
        "loss": np.float32(1),
        "epoch": np.int64(299),
        "finished": np.bool_(True),
    }
    done = convert(resnet, content, legacy=legacy)
    assert done.code == 0, done.err
    assert "['state_dict']" in done.out


@pytest.mark.parametrize("key", ["model", "state_dict_ema"])
def test_other_keys_of_training_programs(key, small_resnet, convert):
    done = convert(resnet, {key: small_resnet, "epoch": 3})
    assert done.code == 0, done.err


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.99])
def test_truncated_files(legacy, fraction, small_resnet, tmp_path, convert):
    path = save(tmp_path, small_resnet, legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    done = convert(resnet, path)
    assert done.code == 2
    assert "damaged" in done.err
    assert str(path) in done.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 5000, "damaged or not from PyTorch"),
        (b"<!DOCTYPE html><html>Not found</html>", "damaged or not from PyTorch"),
        (b"PK\3\4 and no more", "damaged or not from PyTorch"),
    ],
)
def test_files_that_are_no_checkpoints(content, words, tmp_path, convert):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    done = convert(resnet, path)
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {"a": 1}}])
def test_files_without_tensors(content, convert):
    done = convert(resnet, content)
    assert done.code == 2
    assert "no named tensors" in done.err


def test_paths(small_resnet, tmp_path, convert):
    done = convert(resnet, tmp_path / "absent.pth")
    assert (done.code, "absent.pth is missing" in done.err) == (2, True)
    done = convert(resnet, tmp_path)
    assert (done.code, "is a folder" in done.err) == (2, True)
    file = save(tmp_path, small_resnet)
    done = convert(resnet, small_resnet, output=file)
    assert (done.code, "is not a folder" in done.err) == (2, True)
    done = convert(resnet, small_resnet, output=file / "below")
    assert (done.code, "cannot write" in done.err) == (2, True)


def test_existing_output(small_resnet, tmp_path, convert):
    first = convert(resnet, small_resnet)
    assert first.code == 0
    small_resnet["fc.bias"] += 1
    again = convert(resnet, small_resnet)
    assert again.code == 2
    assert "exists" in again.err
    assert "--overwrite" in again.err
    parameters, _ = networks.load(first.folder)
    replaced = convert(resnet, small_resnet, "--overwrite")
    assert replaced.code == 0
    changed, _ = networks.load(first.folder)
    np.testing.assert_array_equal(changed["fc.bias"], parameters["fc.bias"] + 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    done = convert(resnet, small_resnet, "--overwrite", output=other)
    assert done.code == 2
    assert "something other than a checkpoint" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--checkpoint=FILE and --output=DIR are required"),
        (["--checkpoint=a"], "--checkpoint=FILE and --output=DIR are required"),
        (["--bogus=1"], "Unknown command line flag 'bogus'"),
        (["--verify=perhaps"], "verify"),
        (["--checkpoint=a", "--output=b", "c"], "unexpected argument 'c'"),
    ],
)
@pytest.mark.parametrize("converter", [resnet, efficientnet_lite])
def test_bad_flags_are_one_line(converter, flags, words, capsys):
    assert converter.main(["convert", *flags]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_the_shell_sees_the_code_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "converters.efficientnet_lite"]
    done = subprocess.run(
        [*command, "--checkpoint=absent.pth", f"--output={tmp_path / 'x'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "checkpoint absent.pth is missing\n"
    assert done.stdout == ""
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_help(capsys):
    assert resnet.main(["convert", "--help"]) == 0
    text = capsys.readouterr().out
    for words in ("model_best.pth.tar", "--ignore", "--[no]verify"):
        assert words in text


def test_without_torch(tmp_path, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    done = convert(resnet, path)
    assert done.code == 2
    assert "pip install 'jdissect[convert]'" in done.err
