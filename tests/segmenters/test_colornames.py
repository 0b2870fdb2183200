"""The segmenter 'colornames': conversion, pooling, and whether it names colours."""

import json
import math

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.data import loader
from jdissect.data.loader import Batch
from jdissect.datasets.broden import open_broden
from jdissect.segmenters import colornames
from jdissect.segmenters.colornames import open_colornames

NAMES = ["black", "blue", "brown", "gray", "green", "orange"]
NAMES += ["pink", "purple", "red", "white", "yellow"]

# Colours that people agree on; mostly those of CSS and of paint and material charts.
# None of them is a prototype, but for black and white.
EVIDENT = {
    "black": "000000 0a0a0a 111111 1c1c1c 282828",
    "blue": """
        0000cd 1e90ff 4682b4 87ceeb 00bfff 6495ed 4169e1 add8e6 191970 00008b 87cefa
        0047ab 003399 2196f3
    """,
    "brown": "8b4513 a0522d 654321 5c4033 7b3f00 6b4423 964b00 5d4037 d2691e",
    "gray": "808080 696969 a9a9a9 9e9e9e 616161 c0c0c0",
    "green": """
        228b22 006400 32cd32 2e8b57 90ee90 6b8e23 98fb98 00ff7f 4caf50 7cfc00 556b2f
        3cb371 1b5e20
    """,
    "orange": "ff8c00 ffa500 ff7f00 f28500 ff6f00 fb8c00",
    "pink": "ffc0cb ff69b4 ffb6c1 ff1493 db7093 f48fb1 f8bbd0",
    "purple": "4b0082 9400d3 9932cc 663399 9370db 8a2be2 ba55d3 7b1fa2 9c27b0 6a0dad",
    "red": "dc143c b22222 8b0000 e60000 c8102e d32f2f cc0000 f44336 b71c1c",
    "white": "ffffff fffafa f8f8ff f5f5f5 fffff0 fffaf0 f0f0f0",
    "yellow": "ffd700 fff44f f0e68c fff200 ffee58 ffeb3b fdd835 ffe135 ffdf00",
}


def a_batch(pixels, valid=None):
    size = len(pixels)
    return Batch(
        index=np.arange(size, dtype=np.int32),
        valid=np.ones(size, bool) if valid is None else np.asarray(valid),
        pixels=pixels,
        labels=None,
        annotated=None,
        skipped=(),
    )


def photographs(shape, batch=3):
    """Smooth random pictures with all colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (batch, 3, 4, 3), np.uint8)
    return coarse.repeat(-(-shape[0] // 3), 1).repeat(-(-shape[1] // 4), 2)[
        :, : shape[0], : shape[1]
    ]


# L*, a*, b* of sRGB's corners under D65, as published (Lindbloom's calculator).
@pytest.mark.parametrize(
    "srgb, lab",
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((128, 128, 128), (53.585, 0, 0)),
        ((255, 0, 0), (53.241, 80.092, 67.203)),
        ((0, 255, 0), (87.735, -86.183, 83.179)),
        ((0, 0, 255), (32.297, 79.188, -107.860)),
        ((255, 255, 0), (97.139, -21.554, 94.478)),
        ((0, 255, 255), (91.113, -48.088, -14.131)),
        ((255, 0, 255), (60.324, 98.234, -60.825)),
    ],
)
def test_lab_of_known_colors(srgb, lab):
    found = colornames.srgb_to_lab(np.array(srgb) / 255)
    np.testing.assert_allclose(found, lab, atol=0.01)


def test_interface():
    segmenter = open_colornames()
    assert [name for name, _ in segmenter.concepts] == ["-", *NAMES]
    assert [category for _, category in segmenter.concepts] == ["-"] + ["color"] * 11
    assert segmenter.mask_shape == (56, 56)
    assert segmenter.map_names == ("colors",)
    batch = a_batch(photographs((30, 40)), valid=[True, False, True])
    maps = segmenter.label_maps(batch)
    assert maps.shape == (3, 1, 56, 56)
    assert maps.dtype == np.int16
    assert not maps[1].any()
    assert maps[[0, 2]].min() >= 1
    assert maps.max() <= 11
    assert segmenter.annotated(batch) is None
    assert open_colornames(7).mask_shape == (7, 7)
    with pytest.raises(UserError, match="mask_size is -1"):
        open_colornames(-1)


def test_identity_changes_with_what_changes_maps(monkeypatch):
    identity = open_colornames().identity(None)
    assert json.loads(json.dumps(identity)) == identity
    assert open_colornames(56).identity(None) == identity
    assert open_colornames(57).identity(None) != identity
    others = {**colornames._CENTROIDS, "white": "f2f3f4"}
    monkeypatch.setattr(colornames, "_CENTROIDS", others)
    colornames._table.cache_clear()
    try:
        assert open_colornames().identity(None) != identity
    finally:
        colornames._table.cache_clear()


def test_centroids_are_complete():
    colors = " ".join(colornames._CENTROIDS.values()).split()
    assert len(colors) == len(set(colors)) == 267
    assert list(colornames._CENTROIDS) == NAMES
    lab, numbers = colornames.prototypes()
    assert len(lab) == len({tuple(color) for color in lab}) == len(numbers)


def test_evident_colors():
    known = {*" ".join(colornames._BEYOND_SURFACES.values()).split()}
    known |= {*" ".join(colornames._CENTROIDS.values()).split()}
    wrong = []
    for name, colors in EVIDENT.items():
        for color in colors.split():
            assert color not in known - {"000000", "ffffff"}
            pixels = np.full((1, 8, 8, 3), list(bytes.fromhex(color)), np.uint8)
            numbers = np.unique(open_colornames(4).label_maps(a_batch(pixels)))
            found = [NAMES[number - 1] for number in numbers]
            if found != [name]:
                wrong.append((color, name, found))
    assert not wrong
    assert sum(len(colors.split()) for colors in EVIDENT.values()) > 90


def test_table_is_the_nearest_prototype():
    """At the middles of cells, one by one; elsewhere nearly always."""
    lab, numbers = colornames.prototypes()

    def nearest(srgb):
        color = colornames.srgb_to_lab(np.asarray(srgb) / 255)
        distances = [math.dist(color, prototype) for prototype in lab]
        return numbers[distances.index(min(distances))]

    rng = np.random.default_rng(0)
    for cell in rng.integers(0, 64, (300, 3)):
        assert colornames._table()[tuple(cell)] == nearest(4 * cell + 1.5)
    colors = rng.integers(0, 256, (300, 1, 1, 3), np.uint8)
    found = colornames.name_colors(colors, (1, 1)).ravel()
    same = found == [nearest(color) for color in colors.reshape(-1, 3)]
    assert same.mean() > 0.97


@pytest.mark.parametrize(
    "size, shape",
    [
        ((224, 224), (56, 56)),
        ((50, 31), (7, 9)),
        ((5, 3), (8, 7)),
        ((1, 1), (3, 2)),
        ((9, 9), (1, 1)),
    ],
)
def test_pooling_against_plain_loops(size, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3), np.uint8)
    sums, counts = colornames.pool_sums(pixels, shape)
    assert sums.shape == (2, *shape, 3)
    for y in range(shape[0]):
        for x in range(shape[1]):
            cell = pixels[
                :,
                math.floor(y * size[0] / shape[0]) : math.ceil(
                    (y + 1) * size[0] / shape[0]
                ),
                math.floor(x * size[1] / shape[1]) : math.ceil(
                    (x + 1) * size[1] / shape[1]
                ),
            ]
            assert counts[y, x] == cell.shape[1] * cell.shape[2]
            expected = cell.sum(axis=(1, 2), dtype=np.int64)
            np.testing.assert_array_equal(sums[:, y, x], expected)


def test_sums_of_large_cells_do_not_overflow():
    white = np.full((1, 3000, 3000, 3), 255, np.uint8)
    sums, counts = colornames.pool_sums(white, (1, 1))
    assert sums.ravel().tolist() == [255 * 9_000_000] * 3
    assert counts.item() == 9_000_000
    assert colornames.name_colors(white, (1, 1)).item() == 1 + NAMES.index("white")


def test_a_map_does_not_depend_on_its_companions():
    segmenter = open_colornames(11)
    pixels = photographs((37, 50), batch=4)
    maps = segmenter.label_maps(a_batch(pixels))
    order = [2, 0, 2, 3]
    again = segmenter.label_maps(a_batch(pixels[order]))
    np.testing.assert_array_equal(again, maps[order])
    for index in range(4):
        alone = segmenter.label_maps(a_batch(pixels[index : index + 1]))
        np.testing.assert_array_equal(alone[0], maps[index])


def test_agreement_with_brodens_colors(shared):
    """Names learned from photographs (w2c) as labels, 334 photographs, per pixel."""
    source = open_broden(str(shared / "data" / "broden_street"))
    numbers = {
        name.removesuffix("-c").replace("grey", "gray"): number
        for number, (name, category) in enumerate(source.annotations.concepts)
        if category == "color"
    }
    assert sorted(numbers) == NAMES
    ours_of = np.zeros(max(numbers.values()) + 1, int)
    ours_of[[numbers[name] for name in NAMES]] = range(1, 12)
    segmenter = open_colornames(source.annotations.grid[0])
    confusion = np.zeros((12, 12), int)
    for batch in loader.batches(source, 32):
        ours = segmenter.label_maps(batch)[batch.valid, 0]
        theirs = ours_of[batch.labels[batch.valid]].max(axis=1)
        np.add.at(confusion, (theirs, ours), 1)
    assert not confusion[0].any()  # every pixel has a colour
    agreement = np.trace(confusion) / confusion.sum()
    recall = np.diag(confusion)[1:] / confusion[1:].sum(axis=1)
    assert agreement > 0.9  # measured: 0.908
    # 98 % of the pixels; the others are mostly dull, and black or gray here.
    for name, least in {
        "black": 0.92,
        "gray": 0.93,
        "white": 0.93,
        "blue": 0.67,
    }.items():
        assert recall[NAMES.index(name)] > least, name
