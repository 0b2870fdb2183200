"""What every network must do; that they compute the right thing is for converters."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.models import endpoints
from jdissect.models.layers import ConvNorm, fold_batch_norm
from tests.compiling import QUICKLY
from tests.devices import environment

SMALL = {
    "resnet18": {"width": 8, "classes": 7},
    "resnet50": {"width": 8, "classes": 7},
    "efficientnet_lite0": {"classes": 7},
}
ONE_OF_A_KIND = [
    "resnet18",
    pytest.param("resnet50", marks=pytest.mark.slow),
    pytest.param("efficientnet_lite0", marks=pytest.mark.slow),
]


def abstract(name, **options):
    return models.build_abstract(name, **SMALL[name], **options)


def draw_images(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)


def draw_parameters(name):
    """He's weights, and batch-norm statistics that matter; quicker than `build`."""
    rng = np.random.default_rng(1)
    values = {}
    for key, shape in models.shapes(abstract(name)).items():
        if ".norm." in key:
            values[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            scale = np.sqrt(2 / max(1, np.prod(shape[:-1])))
            values[key] = rng.normal(0, scale, shape).astype(np.float32)
    return values


def make(name, **options):
    """A pure function and drawn parameters for it."""
    values = draw_parameters(name)
    model = abstract(name, **options)
    if options.get("folded"):
        values = fold_batch_norm(values, model.epsilon, model.unfolded)
    apply, params = models.as_function(model)
    return apply, models.with_parameters(params, values)


def run(function, images, endpoints=None):
    """Jitted: op by op, these networks take a minute to compile."""
    apply, params = function
    compiled = jax.jit(lambda p, x: apply(p, x, endpoints), compiler_options=QUICKLY)
    return jax.device_get(compiled(params, images))


def products(function, *arguments):
    """How many convolutions and matrix products a function traces."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("conv_general_dilated[") + text.count("dot_general[")


@pytest.mark.parametrize(
    ("name", "units", "strides"),
    [
        ("resnet18", (8, 8, 16, 32, 64), (4, 4, 8, 16, 32)),
        ("resnet50", (8, 32, 64, 128, 256), (4, 4, 8, 16, 32)),
        (
            "efficientnet_lite0",
            (
                32,
                16,
                *[24] * 2,
                *[40] * 2,
                *[80] * 3,
                *[112] * 3,
                *[192] * 4,
                320,
                1280,
            ),
            (2, 2, *[4] * 2, *[8] * 2, *[16] * 6, *[32] * 6),
        ),
    ],
)
def test_endpoints_have_the_documented_order_and_shapes(name, units, strides):
    model = models.build_abstract(name, **SMALL[name])
    apply, params = models.as_function(model)
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    logits, features = jax.eval_shape(apply, params, images)
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32
    assert set(features) == set(model.stage_names)
    for endpoint, unit, stride in zip(model.stage_names, units, strides, strict=True):
        assert features[endpoint].shape == (2, 96 // stride, 64 // stride, unit)


def test_every_block_is_an_endpoint_in_order_of_depth():
    names = abstract("resnet50").endpoint_names
    assert names == (
        *("conv1", "relu", "stem"),
        *("layer1.0", "layer1.1", "layer1.2", "layer1"),
        *("layer2.0", "layer2.1", "layer2.2", "layer2.3", "layer2"),
        *(f"layer3.{block}" for block in range(6)),
        *("layer3", "layer4.0", "layer4.1", "layer4.2", "layer4"),
    )
    assert abstract("efficientnet_lite0").endpoint_names[:3] == (
        *("conv_stem", "stem", "block0"),
    )
    assert endpoints.listed(names) == (
        "conv1, relu, stem, layer1.0 to layer1.2, layer1, layer2.0 to layer2.3, "
        "layer2, layer3.0 to layer3.5, layer3, layer4.0 to layer4.2, layer4"
    )
    # Two numbers are no range; nor do numbers continue over another name, or skip one.
    for plain in (["block0", "block1"], ["a0", "b1", "c2"], ["a0", "a2", "a4"], ["a"]):
        assert endpoints.listed(plain) == ", ".join(plain)
    assert endpoints.listed(["a8", "a9", "a10", "b"]) == "a8 to a10, b"


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", (2, 2, 2, 2)),
        ("resnet34", (3, 4, 6, 3)),
        ("resnet50", (3, 4, 6, 3)),
        ("resnet101", (3, 4, 23, 3)),
        ("resnet152", (3, 8, 36, 3)),
    ],
)
def test_depths_have_their_blocks(name, blocks):
    names = models.shapes(models.build_abstract(name, width=8))
    found = [
        len({n.split(".")[1] for n in names if n.startswith(f"layer{i}.")})
        for i in (1, 2, 3, 4)
    ]
    assert tuple(found) == blocks


def test_an_abstract_network_is_the_built_one():
    built, abstract_one = (
        jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), models.as_function(model)[1]
        )
        for model in (
            nnx.eval_shape(lambda: models.build("resnet18", rngs=nnx.Rngs(0))),
            models.build_abstract("resnet18"),
        )
    )
    assert built == abstract_one


def test_published_networks_have_their_parameter_counts():
    """25,557,032 and 4,652,008 learned numbers: torchvision's and Google's counts."""
    for name, expected in (
        ("resnet50", 25_557_032),
        ("resnet18", 11_689_512),
        ("efficientnet_lite0", 4_652_008),
    ):
        model = models.build_abstract(name)
        learned = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert sum(np.prod(leaf.shape) for leaf in learned) == expected


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_endpoints_asked_for_are_the_only_ones_returned(name):
    function = make(name)
    images = draw_images(1, 64, 64)
    every_logits, every = run(function, images)
    names = abstract(name).stage_names
    asked = (names[2], names[0])
    logits, some = run(function, images, asked)
    assert logits is None
    assert set(some) == set(asked)
    for endpoint in asked:
        np.testing.assert_allclose(some[endpoint], every[endpoint], rtol=1e-4)
    logits, none = run(function, images, ())
    assert none == {}
    np.testing.assert_allclose(logits, every_logits, atol=1e-4)
    assert list(run(function, images, names[0])[1]) == [names[0]]


@pytest.mark.parametrize(
    ("name", "endpoints", "expected"),
    [
        # Stem; three bottlenecks of three convolutions and one shortcut.
        ("resnet50", ("layer1",), 1 + 3 * 3 + 1),
        ("resnet50", ("stem",), 1),
        ("resnet50", ("conv1",), 1),
        ("resnet50", ("layer1.1",), 1 + 2 * 3 + 1),
        # 53 convolutions; the mean and the classifier.
        ("resnet50", (), 53 + 2),
        # Depthwise convolutions are sums: stem, one projection, two of block 1.
        ("efficientnet_lite0", ("stem", "block1"), 1 + 1 + 2),
    ],
)
def test_nothing_deeper_than_the_endpoints_is_computed(name, endpoints, expected):
    apply, params = models.as_function(abstract(name))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    assert products(lambda p, x: apply(p, x, endpoints), params, images) == expected


@pytest.mark.parametrize(
    ("name", "convolution"),
    [("resnet18", "conv1"), ("efficientnet_lite0", "conv_stem")],
)
def test_the_stem_is_convolved_twice_only_if_asked_for_both(name, convolution):
    """Folded, a convolution before batch normalization is one of its own."""
    apply, params = models.as_function(abstract(name, folded=True))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    for asked, expected in (
        ((convolution,), 1),
        (("stem",), 1),
        ((convolution, "stem"), 2),
    ):
        found = products(lambda p, x, names=asked: apply(p, x, names), params, images)
        assert found == expected
    masks = {convolution: jnp.ones(32 if name.startswith("eff") else 8)}
    assert products(lambda p, x: apply(p, x, "stem", masks), params, images) == 1


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_folded_is_unfolded(name):
    images = draw_images(2, 64, 64)
    expected = run(make(name), images)
    actual = run(make(name, folded=True), images)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for ours, theirs in pairs:
        assert 0 < np.abs(theirs).max() < np.inf
        assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("name", "endpoints"),
    [
        ("resnet18", None),
        pytest.param(
            *("efficientnet_lite0", ("stem", "block3")), marks=pytest.mark.slow
        ),
    ],
)
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(name, endpoints):
    images = draw_images(2, 64, 64)
    exact_logits, exact = run(make(name, folded=True), images, endpoints)
    function = make(name, folded=True, dtype="bfloat16")
    leaves = jax.tree.leaves(function[1])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    logits, features = run(function, images, endpoints)
    pairs = [(features[name], exact[name]) for name in exact]
    assert {maps.dtype for maps, _ in pairs} == {jnp.dtype("bfloat16")}
    if endpoints is None:
        assert logits.dtype == np.float32
        pairs.append((logits, exact_logits))
    for ours, theirs in pairs:
        error = np.std(np.asarray(ours, np.float32) - theirs)
        assert 0 < error < 0.1 * np.std(theirs)


def test_unknown_names_are_the_users_errors():
    with pytest.raises(
        UserError, match=r"'layer9'.*\n.*stem, layer1.0, layer1.1, layer1, "
    ):
        run(make("resnet18"), draw_images(1, 32, 32), ("layer1", "layer9"))
    with pytest.raises(UserError, match="unknown architecture 'vgg16'.*resnet152"):
        models.build("vgg16", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="unknown architecture 'vgg16'"):
        models.build_abstract("vgg16")
    with pytest.raises(UserError, match="efficientnet_lite0.*width"):
        models.build("efficientnet_lite0", width=3, rngs=nnx.Rngs(0))
    assert endpoints.check_endpoints("b", ("a", "b")) == ("b",)


SAME_BITS = """
    import functools, json, sys
    import jax, numpy as np
    from jax.sharding import Mesh, PartitionSpec as P
    from jdissect import models

    images = np.random.default_rng(0).normal(size=(8, 96, 96, 3)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()), "data")
    results = {}
    for name, options, endpoints in json.loads(sys.argv[2]):
        model = models.build_abstract(name, folded=True, **options)
        apply, params = models.as_function(model)
        if endpoints:
            apply = functools.partial(apply, endpoints=endpoints)
        rng = np.random.default_rng(1)
        params = models.with_parameters(params, {
            key: rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
            for key, shape in models.shapes(model).items()})
        step = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=(P(), P("data")),
                                     out_specs=P("data"), check_vma=False))
        together = 2 * len(jax.devices())
        parts = [jax.device_get(step(params, images[i : i + together]))
                 for i in range(0, len(images), together)]
        if not endpoints:
            results[f"{name}.logits"] = np.concatenate([logits for logits, _ in parts])
        for endpoint in parts[0][1]:
            results[f"{name}.{endpoint}"] = np.concatenate(
                [features[endpoint] for _, features in parts])
    np.savez(sys.argv[1], **results)
"""


_WIDE, _NARROW = {"width": 32}, {"width": 4}


@pytest.mark.parametrize(
    ("networks", "counts", "arrays"),
    [
        (
            [
                ("resnet18", _NARROW, ["layer2"]),
                ("efficientnet_lite0", {}, ["stem", "block3"]),
            ],
            (1, 4),
            3,
        ),
        pytest.param(
            [("resnet18", _WIDE, None), ("efficientnet_lite0", {}, None)],
            (1, 2, 4),
            6 + 19,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bits_do_not_depend_on_the_number_of_devices(
    networks, counts, arrays, tmp_path
):
    program = [sys.executable, "-c", textwrap.dedent(SAME_BITS)]
    for count in counts:
        subprocess.run(
            [*program, tmp_path / f"{count}", json.dumps(networks)],
            env=environment(count),
            check=True,
        )
    one, *others = (np.load(tmp_path / f"{count}.npz") for count in counts)
    assert len(one.files) == arrays
    for name in one.files:
        assert np.isfinite(one[name]).all()
        for other in others:
            np.testing.assert_array_equal(other[name], one[name], err_msg=name)


@pytest.mark.parametrize(("images", "height"), [(4, 28), (6, 14)])
@pytest.mark.parametrize("channels", [4, 12, 16])
def test_bits_do_not_depend_on_an_images_place(images, height, channels):
    """Of few channels XLA's CPU backend would sum some pixels in another order."""
    conv = ConvNorm(
        12, channels, 3, stride=2, padding="SAME", folded=True, rngs=nnx.Rngs(0)
    )
    apply, params = models.as_function(conv)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(images, height, height, 12)).astype(np.float32)
    found = np.asarray(jax.jit(apply)(params, pixels))
    order = rng.permutation(images)
    moved = np.asarray(jax.jit(apply)(params, pixels[order]))
    np.testing.assert_array_equal(moved, found[order])


@pytest.mark.parametrize("count", [1, 4, 11, 14, 16, 32])
def test_by_parts_is_the_same_function(count):
    """On a CPU a few images at a time, where the count has a divisor from 4 to 8."""
    seen = []

    def apply(params, images):
        seen.append(len(images))
        return {"a": images.sum((1, 2)) * params, "b": (images[:, 0],)}

    images = draw_images(count, 3, 5)
    expected = apply(2.0, images)
    found = jax.jit(models.by_parts(apply))(2.0, images)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), expected, found
    )
    parts = {14: 7, 16: 8, 32: 8} if jax.default_backend() == "cpu" else {}
    assert seen[-1] == parts.get(count, count)
