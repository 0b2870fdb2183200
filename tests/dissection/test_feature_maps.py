"""What a network may return, and how what it may not is refused."""

import collections
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jdissect.base.errors import UserError
from jdissect.dissection.feature_maps import of_layers, warn_of_axes

MAPS = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
LOGITS = np.zeros((2, 10), np.float32)
Output = collections.namedtuple("Output", "logits endpoints")


@pytest.mark.parametrize(
    "returned, name",
    [
        ({"a": MAPS, "other": None}, "a"),
        ({"block": {"conv": {1: MAPS}}, "a": LOGITS}, "block.conv.1"),
        ({"intermediates": {"Conv_0": {"__call__": (MAPS,)}}}, ""),
        ((LOGITS, {"a": [MAPS]}), "a"),
        ([{"a": MAPS}, LOGITS, None], "a"),
        (Output(LOGITS, {"a": MAPS}), "a"),
        (({"a": MAPS},), "a"),
        (collections.OrderedDict(a=MAPS), "a"),
        (MAPS, "any name"),
        ((MAPS,), "any name"),
        (nnx.State({"a": nnx.Intermediate((jnp.asarray(MAPS),))}), "a"),
    ],
)
def test_what_has_one_meaning(returned, name):
    name = name or "intermediates.Conv_0.__call__"
    found = of_layers(returned, [name], 2)
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name], MAPS)


def test_intermediates_of_linen():
    class Small(linen.Module):
        @linen.compact
        def __call__(self, images):
            return linen.Conv(5, (1, 1), name="only")(images).mean((1, 2))

    model = Small()
    params = model.init(nnx.Rngs(0).params(), MAPS)
    returned = model.apply(params, MAPS, capture_intermediates=True)
    name = "intermediates.only.__call__"
    expected = MAPS @ params["params"]["only"]["kernel"][0, 0]
    np.testing.assert_allclose(of_layers(returned, [name], 2)[name], expected, 1e-5)


@pytest.mark.parametrize(
    "returned, message",
    [
        (None, "apply returns None; it must return a dict of feature maps"),
        ((LOGITS, MAPS), r"a tuple of 2 \(float32\[2, 10\], float32\[2, 3, 4, 5\]\)"),
        (({"a": MAPS}, {"a": MAPS}), r"a tuple of 2 \(a dict, a dict\); it must"),
        ({"a": (MAPS, MAPS)}, "layer 'a' is a tuple of 2 .* called twice"),
        ({"a.b": MAPS, "a": {"b": MAPS}}, "two things under the name 'a.b'"),
        ({"b": MAPS, "c": {"a": MAPS}}, "no layer 'a'; there are: b, c.a"),
        ({}, "no layer 'a'; there are: none"),
        ({"a": "maps"}, "layer 'a' is a str; a feature map is one array"),
        ({"a": MAPS + 1j}, "layer 'a' is complex64; activations must be real"),
        ({"a": MAPS[:1]}, r"\(1, 3, 4, 5\) for a batch of 2 images; its first axis"),
        ({"a": MAPS[:, :0]}, "it is empty"),
        ({"a": LOGITS}, r"shape \(2, 10\).*; maps\[:, None, None, :\]"),
        ({"a": MAPS[None]}, r"a feature map is \[batch, height, width, units\]$"),
    ],
)
def test_what_is_refused(returned, message):
    with pytest.raises(UserError, match=message) as error:
        of_layers(returned, ["a"], 2)
    assert len(str(error.value).splitlines()) == 1


def test_a_bare_array_is_not_two_layers():
    with pytest.raises(UserError, match=r"apply returns float32\[2, 3, 4, 5\]"):
        of_layers(MAPS, ["a", "b"], 2)


@pytest.mark.parametrize(
    "tokens, others, side", [(49, 0, 7), (197, 1, 14), (201, 5, 14)]
)
def test_how_tokens_become_a_grid(tokens, others, side):
    """The advice, followed, makes feature maps."""
    maps = np.zeros((2, tokens, 6), np.float32)
    with pytest.raises(UserError) as error:
        of_layers({"a": maps}, ["a"], 2)
    advice = str(error.value).partition("grid: ")[2]
    assert ("registers" in str(error.value)) == bool(others)
    grid = eval(advice, {"maps": maps})  # a line of the test's own
    assert grid.shape == (2, side, side, 6)
    assert grid.base.shape == maps.shape and grid.size == 2 * side * side * 6


def test_tokens_of_no_square():
    with pytest.raises(UserError, match=r"maps\[:, others:\].reshape"):
        of_layers({"a": np.zeros((2, 2500 - 40, 6))}, ["a"], 2)


@pytest.mark.parametrize(
    "shape, masks, doubtful",
    [
        ((2, 64, 7, 7), (56, 56), True),
        ((2, 3, 12, 10), (24, 20), True),
        ((2, 7, 7, 64), (56, 56), False),
        ((2, 6, 5, 7), (12, 10), False),
        ((2, 7, 7, 7), (56, 56), False),
        ((2, 196, 1, 768), (56, 56), False),
        ((2, 1, 1, 512), (56, 56), False),
    ],
)
def test_units_before_height_and_width_are_doubted(shape, masks, doubtful):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_axes("a", shape, masks)
    assert len(caught) == doubtful
    for warning in caught:
        _, first, second, third = shape
        text = f"height {first}, width {second} and {third} units"
        assert text in str(warning.message) and "moveaxis" in str(warning.message)
