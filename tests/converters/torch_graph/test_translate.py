"""Translating modules: what comes out, for which batches and types, and the errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch absent: nothing can be translated")

from torch import nn  # noqa: E402

from benchmarks.support import torch_parity  # noqa: E402
from jdissect.base.errors import UserError  # noqa: E402
from jdissect.converters import torch_graph  # noqa: E402

IMAGES = torch.randn(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Convolutions with batch normalization, activations in place, shared weights."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.act = nn.ReLU(inplace=True)
        self.deep = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.deeper = nn.Conv2d(24, 24, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(24)
        self.left = nn.Linear(24, 7)
        self.right = nn.Linear(24, 7)
        self.right.weight = self.left.weight

    def forward(self, images):
        maps = self.act(self.norm(self.stem(images)))
        maps += self.norm2(self.deeper(self.deep(maps)))
        pooled = maps.relu_().mean((2, 3))
        return self.left(pooled) + self.right(pooled)


class Calls(nn.Module):
    """Calls a function of its one layer and the images."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = layer or nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return self.function(self.layer, images)


@pytest.fixture(scope="module")
def small():
    return torch_parity.randomize(Small())


@pytest.fixture(scope="module")
def translated(small):
    return torch_graph.translate(small, IMAGES, ["norm", "norm2", "deep"])


def refused(module, layers=("layer",), images=IMAGES) -> str:
    with pytest.raises(UserError) as error:
        torch_graph.translate(module, images, layers)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_layers_are_what_pytorch_computes(small, translated):
    layers = ["norm", "norm2", "deep"]
    images = torch.cat([IMAGES, IMAGES.flip(3), IMAGES * 2])
    expected = torch_parity.by_torch(small, images, layers)
    found = torch_parity.by_jax(translated, images)
    assert max(torch_parity.largest(found, expected).values()) <= 2e-6


def test_a_layer_is_recorded_before_it_is_changed_in_place(small, translated):
    found = torch_parity.by_jax(translated, IMAGES)
    assert found["norm"].min() < 0 and found["norm2"].min() < 0


def test_shapes_are_those_of_the_example(translated):
    assert translated.shapes == dict.fromkeys(["norm", "norm2", "deep"], (1, 24, 5, 6))


def test_shared_parameters_are_there_once(translated):
    assert [name for name in translated.params if name.endswith(".weight")] == [
        *("stem.weight", "deep.weight", "deeper.weight", "left.weight")
    ]


def test_batch_norms_are_folded(small, translated):
    norm, kernel = small.norm2, small.deeper.weight.numpy()
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).numpy()
    expected = (kernel * factor[:, None, None, None]).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(translated.params["deeper.weight"], expected, rtol=1e-6)
    assert not any(name.startswith("norm") for name in translated.params)


def test_a_probed_convolution_is_not_folded(small):
    translated = torch_graph.translate(small, IMAGES, ["stem"])
    expected = torch_parity.by_torch(small, IMAGES, ["stem"])
    found = torch_parity.by_jax(translated, IMAGES)
    assert max(torch_parity.largest(found, expected).values()) <= 2e-6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_exported_graph_runs_any_batch(translated, dtype):
    (batch,) = jax.export.symbolic_shape("batch")
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), translated.params)
    images = jax.ShapeDtypeStruct((batch, 9, 11, 3), dtype)
    exported = jax.export.export(
        jax.jit(translated.apply), platforms=("cpu", "cuda", "tpu")
    )(params, images)
    text = exported.mlir_module()
    assert "gather" not in text  # what slices would be for an unknown batch size
    for count in (1, 3):
        images = torch_parity.as_jax(IMAGES.repeat(count, 1, 1, 1)).astype(dtype)
        found = jax.jit(exported.call)(params, images)
        expected = jax.jit(translated.apply)(params, images)
        for name, array in expected.items():
            assert array.dtype == found[name].dtype == dtype
            assert array.shape[0] == count
            difference = jnp.abs(found[name] - array).astype(jnp.float32).max()
            assert difference <= (1e-5 if dtype == jnp.float32 else 0.05)


def test_the_module_is_left_as_it_was():
    module = Small().train()
    torch_graph.translate(module, IMAGES, ["norm"])
    assert module.training and module.norm.training
    assert not any(part._forward_hooks for part in module.modules())


def test_layer_shapes_lists_what_can_be_taken():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(9, 4), nn.Conv2d(3, 2, 3)
            self.twice, self.pair = nn.ReLU(), Calls(lambda _, x: (x, x))
            self.windows = nn.Linear(9, 4)

        def forward(self, images):
            maps = self.twice(self.first(self.twice(self.pair(images)[0])))
            self.windows(maps.reshape(-1, 9))
            return self.second(maps)

    images = torch.zeros(1, 3, 5, 11)
    assert torch_graph.layer_shapes(Lists(), images) == {
        "first": (1, 2, 3, 9),
        "second": (1, 2, 3, 4),
    }


def test_unknown_layers():
    message = refused(Small(), ["nrm2"])
    assert "no layer 'nrm2'" in message and "norm2, norm" in message


def test_layers_with_several_outputs():
    pair = Calls(lambda _, x: (x, x))
    message = refused(Calls(lambda layer, x: layer(x)[0], pair))
    assert "'layer' returns not one tensor" in message


def test_layers_that_are_called_twice_or_never():
    module = Calls(lambda layer, x: layer(layer(x)), nn.ReLU())
    assert "'layer' is called 2 times" in refused(module)
    assert "'layer' is not called" in refused(Calls(lambda _, x: x))


def test_layers_without_a_batch():
    module = Calls(lambda layer, x: layer(x.reshape(-1, 11)), nn.Linear(11, 2))
    assert "shape [54, 2] for 2 images" in refused(module)


def test_branches_on_data_are_named_with_their_place():
    branches = Calls(lambda _, x: x if x.sum() > 0 else -x)
    message = refused(Calls(lambda layer, x: layer(x), branches))
    assert "branches on data in layer 'layer' (test_translate.py:" in message


def test_fixed_batch_sizes():
    module = Calls(lambda layer, x: layer(x.reshape(2, 3, 9, 11)))
    assert "only works for batches of 2" in refused(module)


def test_operators_without_translation_are_named_with_their_place():
    unknown = Calls(lambda _, x: torch.linalg.svdvals(x))
    message = refused(Calls(lambda layer, x: layer(x), unknown))
    assert "'linalg_svd'" in message or "'_linalg_svd'" in message
    assert "stands in layer (Calls)" in message


def test_random_numbers():
    module = Calls(lambda layer, x: layer(x + torch.randn_like(x)))
    assert "'randn_like'" in refused(module)


def test_statistics_of_the_batch():
    module = Calls(
        lambda layer, x: layer(x), nn.BatchNorm2d(3, track_running_stats=False)
    )
    assert "statistics of the batch" in refused(module)


def test_examples_that_do_not_fit():
    message = refused(Small(), ["norm"], torch.zeros(1, 4, 9, 11))
    assert "fails on an example of shape [2, 4, 9, 11]" in message
