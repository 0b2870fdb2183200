"""Any PyTorch module becomes a folder; seen by who runs the command."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import jdissect
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.converters import torch_module
from tests import devices, small_modules

torch = pytest.importorskip("torch")
HALVES = ("--mean=0.5,0.5,0.5", "--std=0.25,0.25,0.25")
VIT = "--model=python:tests.small_modules:vit"
LAYERS = ("patch_embed", "blocks.0", "blocks.1.attn.out", "blocks.1.mlp.1")


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """The folder of `small_modules.vit`."""
    folder = tmp_path_factory.mktemp("any") / "vit"
    jdissect.convert_torch(
        *(small_modules.vit(), torch.zeros(1, 3, 32, 32), LAYERS, folder),
        mean=(0.5, 0.4, 0.3),
        std=(0.1, 0.2, 0.3),
        tell=lambda line: None,
    )
    return folder


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; returns code, output and error."""

    def run(*argv):
        code = torch_module.main(["convert", f"--output={tmp_path / 'out'}", *argv])
        captured = capsys.readouterr()
        if code:
            assert captured.err.count("\n") <= 2 and not (tmp_path / "out").exists()
        return code, captured.out, captured.err

    return run


def torch_outputs(module, images):
    """What PyTorch's modules return, by hooks: {dotted name: array}."""
    kept = {}

    def keep(name):
        def hook(_, inputs, output):
            kept[name] = output.detach().clone().float().numpy()

        return hook

    for name in LAYERS:
        module.get_submodule(name).register_forward_hook(keep(name))
    with torch.inference_mode():
        logits = module.eval()(torch.tensor(images.transpose(0, 3, 1, 2)))
    return kept, logits.float().numpy()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_a_transformer_as_in_pytorch(vit, dtype, most):
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    kept, logits = torch_outputs(small_modules.vit(), images)
    expected = {
        "patch_embed": kept["patch_embed"].transpose(0, 2, 3, 1),
        "blocks.0": kept["blocks.0"][:, 2:].reshape(3, 4, 4, 12),
        "blocks.1.mlp.1": kept["blocks.1.mlp.1"][:, 2:].reshape(3, 4, 4, 24),
        # Units of the heads: head * 4 + number.
        "blocks.1.attn.out": np.concatenate(
            [kept["blocks.1.attn.out"][:, head, 2:] for head in range(3)], axis=-1
        ).reshape(3, 4, 4, 12),
    }
    model = networks.load_classifier(vit, dtype=dtype)
    found, maps = jax.jit(lambda p, x: model.apply(p, x))(
        model.params, images.astype(dtype)
    )
    for name, theirs in {**expected, "": logits}.items():
        ours = np.float32(maps[name] if name else found)
        assert np.abs(ours - theirs).max() <= most * np.abs(theirs).max()
    assert model.preprocessing.mean == (0.5, 0.4, 0.3) and model.classes == 4


DISSECT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "transformers"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import jax
import numpy as np
from jdissect.checkpoints import networks
from jdissect.runtime.devices import Devices
model = networks.load_classifier(sys.argv[1])
images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
found = {}
layers = ("blocks.0", "patch_embed")
for mode in ("shard_map", "pmap"):
    devices = Devices(mode)
    step = devices.spmd(lambda state, x, p: model.apply(p, x, layers)[1])
    maps = step(
        devices.states(np.zeros(())),
        devices.scatter(images),
        devices.replicate(model.params),
    )
    for name, each in maps.items():
        found[f"{mode} {name}"] = np.asarray(each).reshape(4, 4, 4, 12)
np.savez(sys.argv[2], **found)
print(len(jax.devices()), "torch" in sys.modules)
"""


def test_without_pytorch_on_two_devices(vit, tmp_path):
    """A process without PyTorch computes the same, for any division of a batch."""
    done = subprocess.run(
        [sys.executable, "-c", DISSECT, str(vit), str(tmp_path / "found.npz")],
        env=devices.environment(2),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["2", "False"]
    found = np.load(tmp_path / "found.npz")
    model = networks.load_classifier(vit)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    # A device sees two images at once.
    parts = [model.apply(model.params, part)[1] for part in (images[:2], images[2:])]
    for layer in ("blocks.0", "patch_embed"):
        alone = np.concatenate([np.asarray(part[layer]) for part in parts])
        np.testing.assert_allclose(found[f"pmap {layer}"], alone, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(
            found[f"pmap {layer}"], found[f"shard_map {layer}"]
        )


def test_the_list_of_layers(run):
    code, out, _ = run(VIT, "--layers=?", "--size=32")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "[batch, 18, 24]" in lines["blocks.1.mlp.1"]
    assert lines["blocks.1.mlp.1"].endswith(
        "tokens: 24 units on 4x4, without 2 prefix tokens"
    )
    assert lines["head"].endswith(" -")


def test_what_the_command_says(run, tmp_path):
    code, out, err = run(VIT, "--layers=blocks.0", "--size=32", "--verify", *HALVES)
    assert (code, err) == (0, "")
    assert "blocks.0: tokens: 12 units on 4x4, without 2 prefix tokens" in out
    *_, last = out.splitlines()
    assert last.startswith("next: python -m jdissect.main --config=")
    assert f"--config.model.name= --config.model.weights={tmp_path / 'out'} " in last
    content = json.loads((tmp_path / "out" / "model.json").read_text())
    assert content["source"]["model"] == "python:tests.small_modules:vit"
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        *("model.json", "weights.safetensors"),
        *("graph.float32.mlir", "graph.bfloat16.mlir"),
    }


REFUSED = [
    (["--layers=blocks.0"], "--model=SOURCE:NAME, --layers=NAME,NAME"),
    ([VIT], "--model=SOURCE:NAME, --layers"),
    (["--model=keras:x", "--layers=a"], "is not one of timm:NAME"),
    (["--model=python:tests", "--layers=a"], "is not python:package.module:function"),
    (["--model=python:tests.absent:f", "--layers=a"], "No module named 'tests.absent'"),
    (["--model=python:tests.small_modules:f", "--layers=a"], "no attribute 'f'"),
    (["--model=python:json:loads", "--layers=a"], "TypeError"),
    (["--model=python:tests.devices:os", "--layers=a"], "not a torch module"),
    (["--model=hf:/absent/config.json", "--layers=a"], ""),
    ([VIT, "--layers=blocks.7", "--size=32", *HALVES], "blocks.1"),
    ([VIT, "--layers=head", "--size=32", *HALVES], "--pooled"),
    ([VIT, "--layers=blocks.0", "--size=32"], "give mean and std of the channels"),
    ([VIT, "--layers=blocks.0", "--size=32", "--mean=1,1,1"], "both --mean and --std"),
    ([VIT, "--layers=blocks.0", "--size=3 2"], "is not a side or HEIGHTxWIDTH"),
    ([VIT, "--layers=blocks.0", "--size=40", *HALVES], "fails on an example of shape"),
    ([VIT, "--layers=blocks.0", "--size=32", "--layout=x", *HALVES], "--layout=x is"),
    ([VIT, "--layers=../x", "--size=32", *HALVES], "cannot name a folder of a run"),
]


@pytest.mark.parametrize(("argv", "reason"), REFUSED, ids=lambda v: str(v)[-40:])
def test_wrong_flags_are_one_line(run, argv, reason):
    code, _, err = run(*argv)
    assert code == 2 and reason in err


@pytest.fixture
def cnn_file(tmp_path):
    """Writes a checkpoint of `small_modules.cnn`, changed; returns its path."""

    def write(change=lambda state: state):
        torch.manual_seed(1)
        module = small_modules.cnn()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        torch.save(change(module.state_dict()), tmp_path / "file.pth")
        return module, tmp_path / "file.pth"

    return write


CNN = ("--model=python:tests.small_modules:cnn", "--layers=2,4", "--size=32", *HALVES)


def test_weights_of_a_file(run, cnn_file, tmp_path):
    """Under a prefix, and in place of the module's own."""
    module, path = cnn_file(
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}}
    )
    code, out, err = run(*CNN, f"--checkpoint={path}")
    assert code == 0, err
    assert "removed the prefix 'model.'" in out
    model = networks.load_classifier(tmp_path / "out")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = module.eval()(torch.tensor(images.transpose(0, 3, 1, 2)))
    logits, _ = model.apply(model.params, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


WRONG_FILES = [
    (lambda state: {k: v for k, v in state.items() if k != "3.bias"}, "lacks 1 tensor"),
    (lambda state: {**state, "3.bias": state["3.bias"][:4]}, "has misshapen 1 tensor"),
    (lambda state: {**state, "9.bias": state["3.bias"]}, "has unknown 1 tensor"),
    (lambda state: {**state, "3.bias": state["3.bias"] * np.inf}, "infinite"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_FILES, ids=lambda v: str(v)[:20])
def test_weights_that_do_not_fit(run, cnn_file, change, reason):
    _, path = cnn_file(change)
    code, _, err = run(*CNN, f"--checkpoint={path}")
    assert code == 2 and reason in err


def test_from_python_what_is_wrong_is_a_user_error(tmp_path, vit):
    module, example = small_modules.vit(), torch.zeros(1, 3, 32, 32)
    for layers, options, reason in [
        ("blocks.0", {}, "how pixels are normalized is not known"),
        ("blocks.0", {"mean": (1,), "std": (1,)}, "3 numbers each"),
        ("blocks.0", {"mean": (0, 0, 0), "std": (1, 1, 0)}, "std not 0"),
        ([], {"mean": (0, 0, 0), "std": (1, 1, 1)}, "at least one layer"),
    ]:
        with pytest.raises(UserError, match=reason):
            jdissect.convert_torch(module, example, layers, tmp_path / "x", **options)
    with pytest.raises(UserError, match="exists"):
        jdissect.convert_torch(module, example, "blocks.0", vit)
    with pytest.raises(UserError, match="not .batch, channel, height, width"):
        jdissect.convert_torch(module, example[0], "blocks.0", tmp_path / "x")
    assert not (tmp_path / "x").exists()
