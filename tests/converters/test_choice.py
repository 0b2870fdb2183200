"""Which of a file's networks a converter takes, and what it says of the others."""

import numpy as np
import pytest
import torch

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.converters import choice, resnet, resnet_names, torch_files


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def shifted(state):
    """Other weights of the same network."""
    return {k: v + 0.25 if v.is_floating_point() else v for k, v in state.items()}


@pytest.fixture
def take(tmp_path):
    """`choice.take` of what PyTorch saved, for ResNets."""

    def run(content, **options):
        torch.save(content, tmp_path / "file.pth")
        file = torch_files.read(tmp_path / "file.pth")
        return choice.take(file, resnet_names.roots, **options)

    return run


def assert_is(taken, state):
    """The tensors are those of the state dict, under the same names."""
    assert taken.tensors.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(taken.tensors[name], tensor.numpy())


PAIRS = {
    "timm": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "torchvision": lambda raw, ema: {
        "model": raw,
        "model_ema": {"n_averaged": torch.tensor(9)} | prefixed("module.", ema),
    },
    "ema": lambda raw, ema: {"model": raw, "ema": ema},
    "longer": lambda raw, ema: {"model_state_dict": raw, "model_ema_state_dict": ema},
    "nested": lambda raw, ema: {"net": {"student": raw}, "ema": {"model": ema}},
    "lightning": lambda raw, ema: {"current_model_state": raw, "state_dict": ema},
    "one dict": lambda raw, ema: {
        "state_dict": prefixed("model.", raw) | prefixed("ema_model.module.", ema)
    },
    "momentum": lambda raw, ema: {
        "state_dict": prefixed("encoder_q.", raw) | prefixed("encoder_k.", ema)
    },
}


@pytest.mark.parametrize("pair", PAIRS)
def test_raw_and_averaged_weights(pair, take, small_resnet):
    raw, ema = small_resnet, shifted(small_resnet)
    content = PAIRS[pair](raw, ema) | {"epoch": 3, "best": torch.tensor(0.5)}
    for weights, expected in ((None, raw), ("raw", raw), ("ema", ema)):
        taken = take(content, weights=weights)
        assert_is(taken, expected)
        kind = weights or "raw"
        other = {"raw": "ema", "ema": "raw"}[kind]
        words = {"raw": "raw", "ema": "averaged (EMA)"}
        (line,) = [note for note in taken.notes if note.startswith("took")]
        assert line.startswith(f"took the {words[kind]} weights, '")
        assert f"the file also has {words[other]} ones" in line
        assert line.endswith(f"(--weights={other})")
        assert taken.source["weights"] == kind
        assert len(taken.source["left"]) == 1
        assert taken.source["taken"] != taken.source["left"][0]


def test_the_choice_of_weights_is_said_and_kept(small_resnet, convert):
    content = {"state_dict": small_resnet, "state_dict_ema": shifted(small_resnet)}
    done = convert(resnet, content, "--weights=ema")
    assert done.code == 0, done.err
    line = "'state_dict_ema'; the file also has raw ones: "
    assert line + "'state_dict' (--weights=raw)" in done.out
    parameters, description = networks.load(done.folder)
    expected = content["state_dict_ema"]["fc.bias"].numpy()
    np.testing.assert_array_equal(parameters["fc.bias"], expected)
    assert description["source"]["weights"] == "ema"
    assert description["source"]["taken"] == "state_dict_ema"
    assert description["source"]["left"] == ["state_dict"]
    assert "weights.pth['state_dict_ema'], sha256" in done.out


def test_weights_that_are_not_there(take, small_resnet):
    with pytest.raises(UserError, match="no averaged .EMA. weights .*'state_dict'"):
        take({"state_dict": small_resnet}, weights="ema")
    averaged = {"model_ema": small_resnet}
    with pytest.raises(UserError, match="no raw weights .*'model_ema'"):
        take(averaged, weights="raw")
    taken = take(averaged)
    assert taken.notes == [
        "took the averaged (EMA) weights, 'model_ema'; the file has no raw ones"
    ]
    plain = take({"state_dict": small_resnet})
    assert plain.notes == []
    assert plain.source.keys() == {"file", "sha256"}


PREFIXES = (
    "module.",
    "module.module.",
    "_orig_mod.",
    "_orig_mod.module.",
    "model.",
    "backbone.",
    "encoder_q.",
    "module.encoder_q.",
    "net.",
    "encoder.",
    "model.backbone.body.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_taken_off_and_said(prefix, take, small_resnet):
    taken = take({"state_dict": prefixed(prefix, small_resnet)})
    assert_is(taken, small_resnet)
    said = " ".join(taken.notes)
    assert "_orig_mod." in said or repr(prefix) in said
    assert not any("left out" in note for note in taken.notes)


def test_names_of_wrappers_inside(take, small_resnet):
    state = {
        name.replace("layer2.", "layer2._orig_mod."): tensor
        for name, tensor in small_resnet.items()
    }
    taken = take(state)
    assert_is(taken, small_resnet)
    assert taken.notes == ["removed '_orig_mod.' and the like from tensor names"]


def test_what_is_outside_is_listed(take, small_resnet):
    outside = {
        "queue": torch.ones(3),
        "head.weight": torch.ones(2, 2),
        "head.bias": torch.ones(2),
        "evil\x1b[2J\nname": torch.ones(1),
    }
    taken = take({"model": prefixed("backbone.", small_resnet) | outside})
    assert_is(taken, small_resnet)
    line = "left out 4 tensors outside of it: queue, head.* (2), evil\\x1b[2J\\nname"
    assert line in taken.notes
    momentum = {"module.a.b": torch.ones(1), "module.c": torch.ones(1)}
    taken = take(prefixed("module.encoder_q.", small_resnet) | momentum)
    assert taken.notes[-1].endswith("outside of it: module.a.* (1), module.c")
    dense = {"classifier.0.convs.0.0.weight": torch.ones(1)}
    taken = take(prefixed("backbone.", small_resnet) | dense)
    assert any("dilated" in note for note in taken.notes)


def test_two_networks_are_refused_by_name(take, small_resnet):
    both = {"student": small_resnet, "teacher": shifted(small_resnet)}
    with pytest.raises(UserError, match="holds 2 networks: 'student', 'teacher'") as e:
        take(both)
    assert "--prefix" in str(e.value)
    assert_is(take(both, prefix="teacher"), shifted(small_resnet))
    named = prefixed("a.", small_resnet) | prefixed("b.", both["teacher"])
    inside = {"state_dict": named}
    with pytest.raises(UserError, match=r"'state_dict\.a', 'state_dict\.b'"):
        take(inside)
    for prefix in ("b", "b.", "state_dict.b."):
        assert_is(take(inside, prefix=prefix), both["teacher"])
    with pytest.raises(UserError, match=r"under --prefix=c; there are: state_dict\.a"):
        take(inside, prefix="c")


def test_one_network_registered_twice_is_one(take, small_resnet):
    twice = prefixed("backbone.", small_resnet) | prefixed("model.0.", small_resnet)
    assert_is(take({"state_dict": twice}), small_resnet)


def test_safetensors(tmp_path, small_resnet, convert):
    from safetensors.torch import save_file

    save_file(small_resnet, tmp_path / "model.safetensors")
    done = convert(resnet, tmp_path / "model.safetensors")
    assert done.code == 0, done.err
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-9])
    done = convert(resnet, tmp_path / "model.safetensors", "--overwrite")
    assert done.code == 2
    assert "model.safetensors is damaged" in done.err
