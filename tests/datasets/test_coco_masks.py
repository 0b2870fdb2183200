"""COCO's polygons and run lengths, against loops over pixels and pycocotools."""

import numpy as np
import pytest

from jdissect.datasets.coco_masks import MAX_POINTS, decode, decode_rle, fill_polygon

SHAPE = (20, 30)


def lengths(pixels):
    """Run lengths, by a loop."""
    found, current, count = [], False, 0
    for value in pixels.T.ravel():
        if value != current:
            found.append(count)
            current, count = value, 0
        count += 1
    return [*found, count]


def compress(counts):
    """The text of run lengths: the loop of maskApi.c's rleToString, in Python."""
    text = ""
    for place, value in enumerate(counts):
        if place > 2:
            value -= counts[place - 2]
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if done else bits | 32))
            if done:
                break
    return text


def some_pixels(seed, shape=SHAPE):
    random = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    center = random.uniform(0, shape)
    near = np.hypot(rows - center[0], columns - center[1]) < random.uniform(1, 15)
    return near | (random.random(shape) < random.choice([0, 0.02, 0.5]))


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths(seed):
    pixels = some_pixels(seed)
    counts = lengths(pixels)
    np.testing.assert_array_equal(decode_rle(counts, SHAPE), pixels)
    np.testing.assert_array_equal(decode_rle(compress(counts), SHAPE), pixels)
    segmentation = {"size": [*SHAPE], "counts": counts}
    np.testing.assert_array_equal(decode(segmentation, SHAPE), pixels)


def test_long_runs():
    """Of several groups of bits, and shorter than the ones before."""
    pixels = np.zeros((700, 900), bool)
    pixels[:, 300:301] = pixels[350, 500] = pixels[:, 600:] = True
    counts = lengths(pixels)
    assert max(counts) > 2**17
    np.testing.assert_array_equal(decode_rle(compress(counts), pixels.shape), pixels)


def test_run_lengths_as_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    for seed in range(30):
        pixels = some_pixels(seed, (37, 53))
        encoded = mask.encode(np.asfortranarray(pixels, np.uint8))
        text = encoded["counts"].decode()
        assert text == compress(lengths(pixels))  # the test's own loop is right
        np.testing.assert_array_equal(decode_rle(text, (37, 53)), pixels)


def inside(polygon, shape):
    """Whether each pixel's center is inside, edge by edge (even-odd rule)."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    found = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (
                    y1 - y0
                ):
                    found[row, column] ^= True
    return found


POLYGONS = {
    "square": [2, 3, 8, 3, 8, 9, 2, 9],
    "half pixels": [2.5, 3.5, 8.5, 3.5, 8.5, 9.5, 2.5, 9.5],
    "star that meets itself": [15, 1, 19, 18, 3, 6, 27, 6, 11, 18],
    "beyond the image": [-5, -8, 40, 5, 12, 33.25],
    "outside": [40, 2, 50, 2, 45, 9],
    "without a height": [2, 4, 20, 4, 11, 4],
    "thin": [2, 2.6, 25, 3.1, 25, 3.4, 2, 2.9],
}


@pytest.mark.parametrize("polygon", POLYGONS.values(), ids=POLYGONS)
def test_polygons(polygon):
    ours = fill_polygon(polygon, SHAPE)
    np.testing.assert_array_equal(ours, inside(polygon, SHAPE))
    backwards = np.reshape(polygon, (-1, 2))[::-1].ravel().tolist()
    np.testing.assert_array_equal(fill_polygon(backwards, SHAPE), ours)


def test_several_polygons_are_one_region():
    first, second = POLYGONS["square"], [5, 5, 14, 5, 14, 14]
    together = decode([first, second], SHAPE)
    assert together.sum() < fill_polygon(first, SHAPE).sum() + together.sum()
    np.testing.assert_array_equal(
        together, inside(first, SHAPE) | inside(second, SHAPE)
    )


def test_edges_in_parts(monkeypatch):
    whole = fill_polygon(POLYGONS["star that meets itself"], SHAPE)
    monkeypatch.setattr("jdissect.datasets.coco_masks._CROSSINGS", 2 * SHAPE[0])
    np.testing.assert_array_equal(
        fill_polygon(POLYGONS["star that meets itself"], SHAPE), whole
    )


@pytest.mark.parametrize(("radius", "least"), [(8, 0.97), (20, 0.985), (60, 0.995)])
def test_polygons_nearly_as_pycocotools(radius, least):
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    both = either = ours = theirs = 0
    for _ in range(20):
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(5, 40)))
        radii = radius * random.uniform(0.6, 1.2, len(angles))
        corners = np.stack(
            [80 + radii * np.cos(angles), 75 + radii * np.sin(angles)], 1
        )
        polygon = corners.round(2).ravel().tolist()
        mine = fill_polygon(polygon, (150, 160))
        other = mask.decode(mask.frPyObjects([polygon], 150, 160))[..., 0] > 0
        both, either = both + (mine & other).sum(), either + (mine | other).sum()
        ours, theirs = ours + mine.sum(), theirs + other.sum()
    assert both / either > least
    assert abs(ours / theirs - 1) < 0.004  # no side of the outline is preferred


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither polygons nor run lengths"),
        ([], "neither polygons nor run lengths"),
        ([[1, 1, 2, 2]], "has 4 coordinates; it must have x and y of at least three"),
        ([[1, 1, 2, 2, 3, 3, 4]], "has 7 coordinates"),
        ([[1, 1, 2, 2, 3, float("nan")]], "has the coordinate nan"),
        ([[1, 1, 2, 2, 3, float("inf")]], "has the coordinate inf"),
        ([[1, 1, 2, 2, 3, 1e300]], "has the coordinate 1e[+]300"),
        ([[1, 1, 2, 2, 3, 10**400]], "has the coordinate 1000"),
        ([[1, 1, 2, 2, 3, True]], "has the coordinate True"),
        ([[1, 1, 2, 2, 3, "4"]], "has the coordinate '4'"),
        ([7], "a polygon is no list"),
        ([[1] * (2 * MAX_POINTS + 2)], "more than 131,072 points"),
        ({"size": [30, 20], "counts": [600]}, r"size is \[30, 20\], but the image is"),
        ({"counts": [600]}, "size is None"),
        ({"size": [20, 30]}, "counts are neither"),
        ({"size": [20, 30], "counts": [599]}, "cover 599 pixels of 600"),
        ({"size": [20, 30], "counts": []}, "cover 0 pixels of 600"),
        ({"size": [20, 30], "counts": ""}, "cover 0 pixels of 600"),
        ({"size": [20, 30], "counts": [1] * 4215}, "more run lengths than 600 pixels"),
        ({"size": [20, 30], "counts": "0" * 4215}, "more run lengths than 600 pixels"),
        ({"size": [20, 30], "counts": [-1, 601]}, "negative or exceeds"),
        ({"size": [20, 30], "counts": [10**30]}, "negative or exceeds"),
        ({"size": [20, 30], "counts": [600.0]}, "neither whole numbers nor"),
        ({"size": [20, 30], "counts": "é"}, "a character that no run length has"),
        ({"size": [20, 30], "counts": "P"}, "end within a run length"),
        ({"size": [20, 30], "counts": "ooooooooooo0"}, "a run length exceeds the"),
        ({"size": [20, 30], "counts": compress([601])}, "negative or exceeds"),
        ({"size": [20, 30], "counts": compress([2**33])}, "negative or exceeds"),
        ({"size": [20, 30], "counts": compress([5, -4])}, "negative or exceeds"),
        ({"size": [20, 30], "counts": compress([600] * 99)}, "cover 59,400 pixels"),
    ],
)
def test_refusals(segmentation, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode(segmentation, SHAPE)
    assert len(str(caught.value)) < 200
