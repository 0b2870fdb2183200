"""A network of the user's own, named on the command line by a function."""

import functools
import json
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jdissect import compare, evaluate, export, main, page, study, train
from jdissect.base.errors import UserError
from jdissect.configs import mixup
from jdissect.jobs import own_network
from jdissect.runtime import command_line
from tests import small_runs
from tests.compiling import QUICKLY

NETWORKS = '''
    """Networks for tests."""

    import jax
    import jax.numpy as jnp
    from flax import linen, nnx


    class Block(nnx.Module):
        def __init__(self, features, out, rngs):
            self.conv = nnx.Conv(features, out, (3, 3), strides=2, rngs=rngs)
            self.norm = nnx.BatchNorm(out, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def mixed(self, x):
            return jnp.tanh(x)

        def __call__(self, x):
            x = self.mixed(self.norm(self.conv(x)))
            self.sow(nnx.Intermediate, "kept", 2 * x)
            return self.drop(x)


    class Net(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([Block(3, 4, rngs), Block(4, 6, rngs)])

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x.mean((1, 2)), {"named": x - 1}


    def of_nnx():
        return Net(nnx.Rngs(0))


    def stated():
        model = Net(nnx.Rngs(0))
        numbers = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
        model.preprocessing = {**numbers, "size": 16}
        return model


    class Small(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(5, (3, 3), strides=2)(x))
            return linen.Conv(7, (3, 3))(x)


    def of_linen():
        model = Small()
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))

        def apply(variables, images):
            return model.apply(variables, images, capture_intermediates=True)

        return apply, variables


    def one_map():
        return (lambda params, images: images * params), jnp.float32(2)


    def nothing():
        return None


    def a_dict():
        return {"a": 1}


    def fails():
        return {}["absent"]


    def tokens():
        return (lambda params, x: {"t": x.reshape(len(x), -1, 3), "m": x}), ()


    def misfit():
        return (lambda params, x: {"m": x @ jnp.ones((9, 9))}), ()


    def badly_stated():
        def apply(params, images):
            return {"m": images}

        apply.preprocessing = {"mean": (0.5,)}
        return apply, ()
'''


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """The module own_networks in the current folder, which Python does not search."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    path = tmp_path / "own_networks.py"
    path.write_text(textwrap.dedent(NETWORKS))
    yield path
    sys.modules.pop("own_networks", None)


def opened(name, layers, shape=(20, 24), **changes):
    config = mixup.get_config()
    config.model.python = f"own_networks:{name}" if ":" not in name else name
    config.model.layers = tuple(layers)
    for key, value in changes.items():
        config.model[key] = value
    network, note = own_network.load(config, shape)
    return config, network, note


def maps_of(network, images, layers):
    apply = jax.jit(
        lambda params, images: network.apply(params, images, tuple(layers))[1],
        compiler_options=QUICKLY,
    )
    return apply(network.params, images)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_an_nnx_module(networks):
    """Every module, method, sown value and returned map is a layer."""
    names = [
        *("blocks.0.conv", "blocks.0.norm", "blocks.0.mixed", "blocks.0.drop"),
        *("blocks.1.conv", "blocks.1.kept", "blocks.1", "named"),
    ]
    config, network, note = opened("of_nnx", names)
    assert "in inference mode (model.eval())" in note
    assert "mean 0.485,0.456,0.406 and std 0.229,0.224,0.225" in note
    assert set(names) < set(network.endpoint_names)
    assert (config.model.name, config.model.weights) == ("own_networks:of_nnx", "")
    images = draw(2, 20, 24, 3)
    found = maps_of(network, images, names)
    model = sys.modules["own_networks"].of_nnx()
    model.eval()

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def by_hand(images):
        x, expected = images, {}
        for place, block in enumerate(model.blocks):
            prefix = f"blocks.{place}"
            expected[f"{prefix}.conv"] = block.conv(x)
            expected[f"{prefix}.norm"] = block.norm(expected[f"{prefix}.conv"])
            x = jnp.tanh(expected[f"{prefix}.norm"])
            expected |= {f"{prefix}.{name}": x for name in ("mixed", "drop")}
            expected |= {prefix: x, f"{prefix}.kept": 2 * x}
        return {**expected, "named": x - 1}

    expected = by_hand(images)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6)


def test_intermediates_of_linen(networks):
    names = ["intermediates.Conv_0.__call__", "intermediates.Conv_1.__call__"]
    _, network, note = opened("of_linen", names)
    assert "eval" not in note
    images = draw(2, 20, 24, 3)
    found = maps_of(network, images, names)
    variables = network.params["params"]
    first = linen.Conv(5, (3, 3), strides=2).apply(
        {"params": variables["Conv_0"]}, images
    )
    second = linen.Conv(7, (3, 3)).apply(
        {"params": variables["Conv_1"]}, np.maximum(first, 0)
    )
    for name, expected in zip(names, (first, second), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


def test_one_map_has_the_name_that_was_asked_for(networks):
    _, network, _ = opened("one_map", ["x"])
    images = draw(2, 4, 4, 3)
    np.testing.assert_array_equal(maps_of(network, images, ["x"])["x"], 2 * images)


def test_what_the_network_states_of_its_images(networks):
    _, network, note = opened("stated", ["blocks.0.conv"])
    assert network.preprocessing.mean == (0.5, 0.4, 0.3)
    assert network.preprocessing.std == (0.1, 0.2, 0.3)
    assert network.preprocessing.scale == 1 / 255
    assert note.endswith("mean 0.5,0.4,0.3 and std 0.1,0.2,0.3, resized to 16x16")
    images = draw(2, 20, 24, 3)
    found = maps_of(network, images, ["blocks.0.conv"])["blocks.0.conv"]
    assert found.shape == (2, 8, 8, 4)
    model = sys.modules["own_networks"].of_nnx()
    resized = jax.image.resize(images, (2, 16, 16, 3), "bilinear")
    np.testing.assert_allclose(
        found, model.blocks[0].conv(resized), rtol=1e-5, atol=1e-5
    )
    _, network, _ = opened(
        "of_nnx", ["blocks.0.conv"], mean=(0.5,) * 3, std=(0.25,) * 3, size=8
    )
    assert network.preprocessing.mean == (0.5,) * 3 and network.input_size == 8


def test_what_changes_the_identity(networks):
    """Parameters, code of the function's file, and images; nothing else."""

    def identity(name="of_nnx", **changes):
        sys.modules.pop("own_networks", None)
        _, network, _ = opened(name, ["blocks.0.conv"], **changes)
        return network.architecture, network.weights_sha256

    before, text = identity(), networks.read_text()
    assert identity() == before
    networks.write_text(text.replace('"""Networks for tests."""', "# A comment.\n"))
    assert identity() == before
    networks.write_text(text.replace("jnp.tanh(x)", "jnp.sin(x)"))
    changed = identity()
    assert changed[0] != before[0] and changed[1] == before[1]
    networks.write_text(text.replace("Net(nnx.Rngs(0))", "Net(nnx.Rngs(1))"))
    assert identity()[1] != before[1]
    networks.write_text(text)
    assert identity(size=8)[0] != before[0]


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("no where:", ["m"], "it must be package.module:function"),
        ("a b:c", ["m"], "it must be package.module:function"),
        ("no.such_module:f", ["m"], "cannot import no.such_module: ModuleNotFoundErr"),
        ("own_networks:f", ["m"], "own_networks has no function f"),
        ("own_networks:jnp", ["m"], "own_networks has no function jnp"),
        ("nothing", ["m"], "returns None; it must return an nnx.Module, or (apply"),
        ("a_dict", ["m"], "returns a dict; it must return"),
        ("fails", ["m"], "own_networks:fails fails: KeyError: 'absent' (own_networks."),
        ("misfit", ["m"], "fails on images (1, 20, 24, 3): TypeError: dot_general"),
        (
            "tokens",
            ["t"],
            "layer 't' has shape (1, 480, 3); a feature map is [batch, h",
        ),
        (
            "badly_stated",
            ["m"],
            "preprocessing of own_networks:badly_stated: preproces",
        ),
        (
            "one_map",
            ["a", "b"],
            "apply returns float32[1, 20, 24, 3]; it must return a",
        ),
    ],
)
def test_what_is_refused_in_a_line(name, layers, message, networks):
    with pytest.raises(UserError) as caught:
        opened(name, layers)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text and len(text) < 500


def run(capsys, command, *arguments):
    code = command_line.entry(command.main, ["command", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_a_dissection(networks, capsys, tmp_path):
    options = [
        "--config=mixup",
        "--config.segmenter.name=colornames",
        "--config.data.num_images=12",
        "--config.mask_size=28",
    ]
    own = "--config.model.python=own_networks:of_nnx"
    layers = "--config.model.layers=blocks.0.norm"
    folder = tmp_path / "run"
    arguments = [*options, own, layers, f"--workdir={folder}"]
    code, out, error = run(capsys, main, *arguments)
    assert code == 0, error
    assert "own_networks:of_nnx: an NNX module, in inference mode" in error
    assert "own_networks:of_nnx, blocks.0.norm: 4 units, 12 images" in out
    assert (folder / "report.html").is_file()
    identity = json.loads((folder / "summary.json").read_text())["identity"]
    assert identity["model.name"] == "own_networks:of_nnx"
    assert run(capsys, main, *arguments)[0] == 0  # it is read again
    networks.write_text(networks.read_text().replace("jnp.tanh", "jnp.sin"))
    sys.modules.pop("own_networks")
    code, _, error = run(capsys, main, *arguments)
    assert code == 2 and "holds another run (different: model)" in error
    code, _, error = run(capsys, main, *options, own, f"--workdir={folder}")
    assert code == 2 and error.endswith(
        "error: own_networks:of_nnx has no layer 'layer4'; it has "
        "blocks.0, blocks.0.conv, blocks.0.drop, blocks.0.kept, blocks.0.mixed, "
        "blocks.0.norm, blocks.1, blocks.1.conv, blocks.1.drop, blocks.1.kept, "
        "blocks.1.mixed, blocks.1.norm, named\n"
    )


def test_who_reads_a_run_imports_nothing(networks, capsys, tmp_path):
    """A stranger's `config.json` may name any function."""
    networks.write_text("raise SystemExit('imported')")
    python = {"python": "own_networks:of_nnx"}
    layer = small_runs.result(units=6, images=8, layer="layer4")
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        config = {"model": {"name": "resnet50", "weights": "", **python}}
        small_runs.write(folder, layer, config=config)
        stored = json.loads((folder / "config.json").read_text())
        assert stored["model"]["python"] == "own_networks:of_nnx"
    output = f"--output={tmp_path / 'out'}"
    for command, read, *more in (
        (page, folders),
        (export, folders, output),
        (compare, folders, output, "--force", "--report=False"),
    ):
        code, _, error = run(capsys, command, *map(str, read), *more)
        assert code == 0, error
    assert "own_networks" not in sys.modules


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (evaluate, "config.model.python is a network to dissect (jdissect.main)"),
        (train, "config.model.python is "),
        (study, "config.model.python is one network; use jdissect.main"),
    ],
)
def test_other_commands_refuse_it(command, message, networks, capsys, tmp_path):
    networks.write_text("raise SystemExit('imported')")
    arguments = [] if command is study else ["--config=mixup"]
    arguments.append("--config.model.python=own_networks:of_nnx")
    if command is train:
        arguments.append(f"--workdir={tmp_path / 'run'}")
    code, _, error = run(capsys, command, *arguments)
    assert code == 2 and message in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
