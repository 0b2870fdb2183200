"""Networks that are kept as StableHLO, and what a stranger may write in their place."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.checkpoints import graph_check, graphs, networks
from jdissect.models.preprocess import IMAGENET

SIGNATURE = graphs.Signature(
    (16, 16, 3),
    (
        graphs.Endpoint("first", (8, 8, 4), "nhwc"),
        graphs.Endpoint("pool.0", (3, 3, 4), "nchw"),
    ),
    5,
)


def network(params, images):
    kernel = params["kernel"].astype(images.dtype)
    first = jax.lax.conv_general_dilated(
        *(images, kernel, (2, 2), ((1, 1), (1, 1))),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    first = jax.nn.gelu(first, approximate=False)
    least = jnp.array(-jnp.inf, images.dtype)
    pool = jax.lax.reduce_window(
        first, least, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
    )
    logits = pool.mean((1, 2)) @ params["head"].astype(images.dtype)
    return {"first": first, "pool.0": pool}, logits


@pytest.fixture(scope="module")
def parameters():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 3, 4), "head": (4, 5)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def texts(parameters):
    return {
        dtype: graphs.write(network, parameters, SIGNATURE, dtype)
        for dtype in graphs.DTYPES
    }


@pytest.fixture
def saved(tmp_path, parameters, texts):
    """Writes a folder; returns it. Keywords change `model.json`."""

    def save(texts=texts, graph=(), **more):
        architecture, content = graphs.describe("tiny", texts, SIGNATURE)
        description = networks.describe_classifier(
            architecture, IMAGENET, input_size=16
        )
        networks.save(
            tmp_path / "net",
            parameters,
            {**description, "graph": {**content, **dict(graph)}, **more},
            tensors=True,
            files=graphs.files(texts),
            overwrite=True,
        )
        return tmp_path / "net"

    return save


@pytest.mark.parametrize("dtype", graphs.DTYPES)
def test_a_graph_computes_what_it_was_made_of(saved, parameters, dtype):
    model = networks.load_classifier(saved(), dtype=dtype)
    assert model.endpoint_names == ("first", "pool.0") and model.classes == 5
    images = np.random.default_rng(1).normal(size=(3, 16, 16, 3)).astype(dtype)
    logits, maps = jax.jit(lambda p, x: model.apply(p, x))(model.params, images)
    expected_maps, expected = network(parameters, jnp.asarray(images))
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(logits, expected, rtol=tolerance, atol=tolerance)
    for name, each in maps.items():
        assert each.dtype == dtype
        np.testing.assert_allclose(
            np.float32(each), np.float32(expected_maps[name]), atol=tolerance
        )


def test_what_is_not_asked_for_is_not_computed(saved):
    model = networks.load_classifier(saved())
    images = np.zeros((2, 16, 16, 3), np.float32)

    def flops(endpoints):
        step = jax.jit(lambda p, x: model.apply(p, x, endpoints))
        return step.lower(model.params, images).compile().cost_analysis()["flops"]

    assert flops("first") < flops("pool.0") < flops(())
    logits, maps = model.apply(model.params, images, ("first",))
    assert logits is None and list(maps) == ["first"]


def test_the_graph_is_part_of_the_identity(saved, texts):
    model = networks.load_classifier(saved())
    same = networks.model_identity(networks.load_classifier(saved(name="other")))
    assert networks.model_identity(model) == same
    changed = {k: v.replace(b"1.12837911", b"1.12837912") for k, v in texts.items()}
    assert changed["float32"] != texts["float32"]
    other = networks.load_classifier(saved(changed))
    assert networks.model_identity(other) != same


def test_a_config_takes_it_by_its_name_or_none(saved):
    folder = saved()

    def config(name):
        found = ml_collections.ConfigDict({"dtype": "float32"})
        found.model = {"name": name, "weights": str(folder)}
        return found

    for name in ("", "tiny"):
        opened = config(name)
        networks.load_configured(opened)
        assert opened.model.name == "tiny"
    with pytest.raises(UserError, match="holds a tiny, not a resnet50; give --config"):
        networks.load_configured(config("resnet50"))
    with pytest.raises(UserError, match="it must be one of resnet18"):
        networks.load_configured(config("vit"))


def test_images_of_another_size_and_unknown_layers(saved):
    model = networks.load_classifier(saved())
    assert model.image_shape == (16, 16)
    flat = np.full((1, 40, 40, 3), 0.5, np.float32)
    found = model.apply(model.params, flat, "first")[1]["first"]
    expected = model.apply(model.params, flat[:, :16, :16], "first")[1]["first"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"images of 16x16 .*are 24x16.*--size=24x16"):
        model.apply(model.params, np.zeros((1, 24, 16, 3), np.float32))
    with pytest.raises(UserError, match="no layer 'second'"):
        model.apply(model.params, np.zeros((1, 16, 16, 3), np.float32), "second")


def test_there_is_no_wrong_gradient(saved):
    model = networks.load_classifier(saved())

    def total(images):
        return model.apply(model.params, images, "first")[1]["first"].sum()

    with pytest.raises(NotImplementedError, match="no gradient"):
        jax.grad(total)(jnp.zeros((1, 16, 16, 3)))


def with_line(text: str, line: str) -> str:
    """Inserts an operation at the beginning of `main`."""
    head, block, rest = re.split(r"(  \^bb0\(.*\n)", text, maxsplit=1)
    return f"{head}{block}    {line}\n{rest}"


ONE = "() <{value = dense<1> : tensor<i32>}>"
MAIN = "(tensor<i32>, tensor<4x5xf32>, tensor<3x3x3x4xf32>, tensor<?x16x16x3xf32>)"
RESULTS = "(tensor<?x8x8x4xf32>, tensor<?x3x3x4xf32>, tensor<?x5xf32>)"
# What a stranger may put into a graph, and the reason for which it is refused.
HOSTILE = {
    "callback": (
        '"stablehlo.custom_call"() <{call_target_name = "xla_python_cpu_callback", '
        "has_side_effect = true}> : () -> ()",
        "it calls 'xla_python_cpu_callback'",
    ),
    "composite": (
        '%t:3 = "stablehlo.composite"(%arg9, %arg10, %arg11, %arg12) '
        f'<{{name = "a.kernel", decomposition = @main}}> : {MAIN} -> {RESULTS}',
        "it calls 'a.kernel'",
    ),
    "token": (
        '%t = "stablehlo.create_token"() : () -> !stablehlo.token',
        "'stablehlo.create_token'",
    ),
    "infeed": ('%t = "stablehlo.infeed"(%a) : () -> ()', "'stablehlo.infeed'"),
    "while": ('%t = "stablehlo.while"(%a) : () -> ()', "'stablehlo.while'"),
    "dialect": ('%t = "llvm.call"(%a) : () -> ()', "'llvm.call'"),
    "short form": (
        "%t = stablehlo.constant dense<1> : tensor<i32>",
        "has 'stablehlo.c",
    ),
    "option": (
        f'%t = "stablehlo.constant"{ONE} {{mhlo.frontend_attributes = {{a = "b"}}}} '
        ": () -> tensor<i32>",
        "has 'mhlo.frontend_attributes'",
    ),
    "resource": (
        '%t = "stablehlo.constant"() <{value = dense_resource<a> : tensor<i32>}> '
        ": () -> tensor<i32>",
        "has 'dense_resource'",
    ),
    "large": (
        '%t = "stablehlo.constant"() <{value = dense<1.0> : tensor<90000x90000xf32>}> '
        ": () -> tensor<90000x90000xf32>",
        "32,400,000,000 bytes",
    ),
    "type": (
        '%t = "stablehlo.constant"() <{value = dense<1.0> : tensor<f64>}> '
        ": () -> tensor<f64>",
        "has 'tensor'",
    ),
    "deep": ("[" * 200, "nested too deeply"),
    "brackets": (")" * 10, "do not match"),
    "itself": (
        f'%t:3 = "func.call"(%arg9, %arg10, %arg11, %arg12) <{{callee = @main}}> : '
        f"{MAIN} -> {RESULTS}",
        "'main' in it calls itself",
    ),
    "quotes": ('"', "a string in it does not end"),
    "no ASCII": ("%\xfc", "not plain text"),
    "nonsense": ("%t = 1", "expected"),
    "wrong operands": (
        f'%t = "stablehlo.constant"{ONE} : () -> tensor<3xi32>',
        "stablehlo.constant",
    ),
}


def texts_of(text: str) -> dict[str, bytes]:
    return {"float32": text.encode("latin-1")}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_wrote_is_refused(saved, texts, name):
    line, reason = HOSTILE[name]
    folder = saved(texts_of(with_line(texts["float32"].decode(), line)))
    with pytest.raises(UserError) as error:
        networks.load_classifier(folder)
    message = str(error.value)
    assert message.startswith(f"the graph of checkpoint {folder} is refused: ")
    assert reason in message and "\n" not in message


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("_ALL", 10_000, "bytes for one image"),
        ("_LARGEST", 500, "bytes for one image"),  # with the batch's size, not before
        ("_MOST_OPERATIONS", 100, "more than 100 operations"),
        ("MOST_BYTES", 1000, "too large"),
    ],
)
def test_large_graphs_are_refused(saved, monkeypatch, limit, value, reason):
    folder = saved()
    networks.load_classifier(folder)
    monkeypatch.setattr(graph_check, limit, value)
    with pytest.raises(UserError, match=reason):
        networks.load_classifier(folder)


FORGED = [
    ({"calling_convention": 99}, "has calling convention 99, but this jax"),
    ({"platforms": ["tpu"]}, "is for tpu, but this machine's devices are cpu"),
    ({"platforms": ["vax"]}, "damaged"),
    ({"platforms": 3}, "damaged"),
    ({"endpoints": [{**SIGNATURE.endpoints[0].to_json(), "name": "../x"}]}, "damaged"),
    ({"endpoints": [SIGNATURE.endpoints[0].to_json()] * 2}, "damaged"),
    ({"endpoints": [SIGNATURE.endpoints[0].to_json()]}, "results of its main do not"),
    ({"endpoints": {}}, "results of its main do not fit"),
    ({"endpoints": 3}, "damaged"),
    ({"classes": 10**9}, "damaged"),
    ({"classes": 6}, "results of its main do not fit the weights"),
    ({"image_shape": [16, 17, 3]}, "arguments of its main do not fit the weights"),
    ({"image_shape": [16, 16, 1]}, "f32[?, 16, 16, 3] for f32[?, 16, 16, 1]"),
    ({"image_shape": [1 << 20, 1 << 20, 3]}, "damaged"),
]


@pytest.mark.parametrize(("changes", "reason"), FORGED, ids=lambda v: str(v)[:40])
def test_a_forged_description_is_refused(saved, changes, reason):
    folder = saved(graph=changes)
    with pytest.raises(UserError) as error:
        networks.load_classifier(folder)
    assert reason in str(error.value) and str(folder) in str(error.value)


def test_a_newer_graph_says_so(saved, texts):
    text = texts["float32"].decode().replace('"stablehlo.tanh"', '"stablehlo.add"')
    text = with_line(text, '%t = "stablehlo.of_tomorrow"() : () -> tensor<i32>')
    folder = saved(texts_of(text), graph={"stablehlo": "99.1.0"})
    with pytest.raises(UserError, match=r"newer StableHLO 99.1.0; .*of_tomorrow"):
        networks.load_classifier(folder)


def test_damaged_files(saved):
    folder = saved()
    file = folder / "graph.float32.mlir"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="differs from the one that was written"):
        networks.load_classifier(folder)
    networks.load_classifier(folder, dtype="bfloat16")
    file.unlink()
    with pytest.raises(UserError, match=r"not there for float32 \(graph.float32.mlir"):
        networks.load_classifier(folder)


FUZZ = """
import random, re, sys
from jdissect.base.errors import UserError
from jdissect.checkpoints import graph_check
text = open(sys.argv[1]).read()
words = re.findall(r'"(?:[^"\\\\]|\\\\.)*"|[%#@^]?[\\w.]+|\\s+|.', text, re.S)
visible = [word for word in words if not word.isspace()]
found = {"refused": 0, "read": 0}
for seed in range(int(sys.argv[2])):
    rng, parts = random.Random(seed), list(words if seed % 2 else text)
    for _ in range(rng.choice([1, 1, 2, 4])):
        chosen = rng.choice(visible) if seed % 2 else chr(rng.randrange(32, 127))
        parts[rng.randrange(len(parts))] = chosen
    changed = "".join(parts)[: rng.randrange(len(text)) if seed % 10 == 0 else None]
    try:
        graph_check.check_text(changed)
        with graph_check.context():
            graph_check.check_module(graph_check.parse(changed), [], [])
    except UserError as error:
        kind = "read" if "main do not fit" in str(error) else "refused"
        found[kind] += 1
print(found["refused"], found["read"])
"""


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_change_of_a_graph_ends_the_process(tmp_path, texts, count):
    """Changed characters, changed words and cut files are refused, or harmless."""
    (tmp_path / "graph").write_bytes(texts["float32"])
    command = [sys.executable, "-c", FUZZ, str(tmp_path / "graph"), str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    refused, read = map(int, done.stdout.split())
    assert refused + read == count and read > 0
