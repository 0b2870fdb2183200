"""Where units and places are in a layer's output."""

import numpy as np
import pytest
from jdissect.converters.layouts import infer

from jdissect.base.errors import UserError
from jdissect.converters import layouts

SQUARE, WIDE = (224, 224), (64, 128)
# shape without the batch, image, layout, (height, width, unit), prefix
FOUND = [
    ((256, 56, 56), SQUARE, "nchw", (56, 56, 256), 0),
    ((512, 14, 28), WIDE, "nchw", (14, 28, 512), 0),  # convolutions without padding
    ((64, 149, 149), (299, 299), "nchw", (149, 149, 64), 0),
    ((3, 224, 224), (7, 7), "nchw", (224, 224, 3), 0),  # a generator
    ((56, 56, 96), SQUARE, "nhwc", (56, 56, 96), 0),  # Swin
    ((4, 8, 96), WIDE, "nhwc", (4, 8, 96), 0),
    ((196, 768), SQUARE, "tokens", (14, 14, 768), 0),
    ((197, 384), SQUARE, "tokens", (14, 14, 384), 1),  # ViT-S/16
    ((198, 384), SQUARE, "tokens", (14, 14, 384), 2),  # distilled
    ((261, 384), SQUARE, "tokens", (16, 16, 384), 5),  # DINOv2 with registers
    ((50, 768), SQUARE, "tokens", (7, 7, 768), 1),  # CLIP, ViT-B/32
    ((1370, 384), (518, 518), "tokens", (37, 37, 384), 1),
    ((33, 12), WIDE, "tokens", (4, 8, 12), 1),
    ((6, 197, 64), SQUARE, "tokens", (14, 14, 384), 1),  # attention heads
]


@pytest.mark.parametrize(("shape", "image", "kind", "found", "prefix"), FOUND)
def test_a_layout_follows_from_the_numbers(shape, image, kind, found, prefix):
    assert infer("x", shape, image) == (kind, found, prefix)


REFUSED = [
    ((1000,), "has the shape [batch, 1000]: it has no place in the image"),
    ((2048, 1, 1), "--pooled"),
    ((1, 384), "it has no place"),
    ((123, 384), "that is no feature map of images of 224x224"),
    ((6, 197, 197), "that is no feature map"),  # attention weights
    ((14, 14, 14), "may be nchw or nhwc; give --layout=x=nchw or nhwc"),
    ((4, 14, 14, 9), "no feature map"),
]


@pytest.mark.parametrize(("shape", "reason"), REFUSED)
def test_what_has_no_layout_is_refused(shape, reason):
    with pytest.raises(UserError) as error:
        infer("x", shape, SQUARE)
    assert reason in str(error.value) and str(error.value).startswith("layer 'x'")


@pytest.mark.parametrize("shape", [(1000,), (1000, 1, 1), (1, 1000)])
def test_without_place_is_one_place_on_demand(shape):
    assert infer("x", shape, SQUARE, pooled=True).shape == (1, 1, 1000)


def test_what_is_asked_for_decides():
    assert infer("x", (14, 14, 14), SQUARE, "nhwc").kind == "nhwc"
    assert infer("x", (9, 16, 8), SQUARE, "nchw").shape == (16, 8, 9)
    assert infer("x", (200, 8), SQUARE, "tokens", prefix=4).prefix == 4
    # 197 = 1 + 14 * 14, but 14 prefix tokens and 183 places are none.
    with pytest.raises(UserError, match="no feature map"):
        infer("x", (197, 8), SQUARE, prefix=14)
    with pytest.raises(UserError, match="that is not tokens"):
        infer("x", (8, 56, 56), SQUARE, "tokens")
    # The module says how many there are: 8 x 8 and 5, not 0 or 1 and another grid.
    assert infer("x", (69, 8), (64, 64), hint=5).prefix == 5


@pytest.mark.parametrize("heads", [None, 3])
def test_tokens_are_placed(heads):
    """Against a loop over places."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 2 + 4 * 8, 12)).astype(np.float32)
    given = tokens
    if heads:
        given = tokens.reshape(2, 34, heads, 4).transpose(0, 2, 1, 3)
    layout = infer("x", given.shape[1:], WIDE)
    placed = np.asarray(layouts.place(given, layout))
    assert placed.shape == (2, 4, 8, 12)
    for row in range(4):
        for column in range(8):
            expected = tokens[:, 2 + 8 * row + column]
            np.testing.assert_array_equal(placed[:, row, column], expected)


def test_maps_are_placed():
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 8)).astype(np.float32)
    placed = np.asarray(layouts.place(maps, infer("x", (5, 4, 8), WIDE)))
    assert all(
        (placed[:, y, x] == maps[:, :, y, x]).all() for y in range(4) for x in range(8)
    )


def test_the_flag():
    parse = layouts.parse
    assert parse(["auto"], ["a", "b"]) == {"a": "auto", "b": "auto"}
    assert parse(["nchw", "b=tokens"], ["a", "b"]) == {"a": "nchw", "b": "tokens"}
    assert layouts.each({"a": "nhwc"}, ["a", "b"]) == {"a": "nhwc", "b": "auto"}
    for wrong in ("nchv", "c=nchw", "a="):
        with pytest.raises(UserError, match=f"--layout={wrong} is not"):
            parse([wrong], ["a", "b"])
