import functools
import math

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jdissect.augment.standard import (
    _draw_crops,
    _draw_jitter,
    _resize,
    color_jitter,
    horizontal_flip,
    pca_lighting,
    random_resized_crop,
    standard,
)

_resize = jax.jit(_resize, static_argnums=2)
_draw_crops = jax.jit(_draw_crops, static_argnums=3)
_draw_jitter = jax.jit(_draw_jitter, static_argnums=1)
_crop = jax.jit(random_resized_crop, static_argnums=3)
_jitter = jax.jit(color_jitter)
_light = jax.jit(pca_lighting)
_flip = jax.jit(horizontal_flip)
_standard = jax.jit(
    standard, static_argnames=("side", "crop", "flip", "jitter", "lighting")
)
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@functools.cache
def photographs():
    """Four smooth but detailed images of several sizes on one canvas of noise."""
    rng = np.random.default_rng(0)
    sizes = np.array([(90, 70), (41, 96), (96, 96), (57, 33)], np.int32)
    canvas = rng.integers(0, 256, (4, 96, 96, 3), np.uint8)
    for image, (height, width) in zip(canvas, sizes, strict=True):
        coarse = rng.integers(0, 256, (height // 5, width // 5, 3), np.uint8)
        image[:height, :width] = Image.fromarray(coarse).resize((width, height), 3)
        image[10:20, 8:30] = rng.integers(0, 256, (10, 22, 3))
    return canvas, sizes


BOXES = np.array(  # of each photograph: top, left, height, width
    [
        [(0, 0, 90, 70), (3, 20, 38, 76), (11, 7, 80, 60), (20, 5, 4, 28)],
        [(60, 30, 30, 40), (0, 0, 41, 30), (40, 50, 56, 46), (0, 0, 57, 33)],
        [(13, 17, 40, 40), (1, 90, 1, 6), (0, 0, 96, 96), (56, 32, 1, 1)],
    ],
    np.int32,
)


@pytest.mark.parametrize("side", [40, 23])
def test_resizes_crops_as_pil(side):
    canvas, _ = photographs()
    differences = []
    for boxes in BOXES:
        found = np.asarray(_resize(canvas, boxes, side)) * 255
        for image, (top, left, height, width), one in zip(
            canvas, boxes, found, strict=True
        ):
            part = Image.fromarray(image[top : top + height, left : left + width])
            expected = np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))
            differences.append(np.abs(one - expected))
            np.testing.assert_allclose(one, expected, rtol=0, atol=1.01)
    # Rounded twice to 8 bits, PIL's pixels are a quarter off or little more on average.
    assert np.mean(differences) < 0.35


def test_resizes_boxes_as_pil_but_for_the_neighbours():
    # resize(box=...) sees pixels beyond the box, within the filter's reach of its edge.
    canvas, _ = photographs()
    top, left, height, width = box = (11, 7, 80, 60)
    found = np.asarray(_resize(canvas[2:3], np.array([box], np.int32), 20)) * 255
    expected = Image.fromarray(canvas[2]).resize(
        (20, 20),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
    )
    inner = slice(1, -1)
    np.testing.assert_allclose(
        found[0, inner, inner], np.asarray(expected)[inner, inner], rtol=0, atol=1.01
    )


def test_resizing_to_the_same_size_changes_nothing():
    canvas, _ = photographs()
    boxes = np.broadcast_to(np.array([13, 17, 40, 40], np.int32), (4, 4))
    found = np.asarray(_resize(canvas, boxes, 40)) * 255
    np.testing.assert_allclose(found, canvas[:, 13:53, 17:57], rtol=0, atol=1e-4)


def draw_by_loops(rng, size, scale, ratio):
    """torchvision's algorithm for one image of (height, width): top, left, h, w."""
    height, width = size
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(ratio)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = (int(rng.integers(d + 1)) for d in (height - h, width - w))
            return top, left, h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(375, 500), (96, 96), (500, 180)])
def test_crops_are_distributed_as_by_loops(size):
    count = 6000
    sizes = np.broadcast_to(np.array(size, np.int32), (count, 2))
    found = np.asarray(_draw_crops(jax.random.key(1), sizes, SCALE, RATIO))
    rng = np.random.default_rng(1)
    expected = np.array([draw_by_loops(rng, size, SCALE, RATIO) for _ in range(count)])
    assert (found[:, :2] >= 0).all() and (found[:, 2:] > 0).all()
    assert (found[:, :2] + found[:, 2:] <= size).all()
    room = [np.maximum(np.array(size) - boxes[:, 2:], 1) for boxes in (found, expected)]
    pairs = {
        "area": [boxes[:, 2] * boxes[:, 3] for boxes in (found, expected)],
        "ratio": [boxes[:, 3] / boxes[:, 2] for boxes in (found, expected)],
        "top": [found[:, 0] / room[0][:, 0], expected[:, 0] / room[1][:, 0]],
        "left": [found[:, 1] / room[0][:, 1], expected[:, 1] / room[1][:, 1]],
    }
    for name, (ours, theirs) in pairs.items():
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3, name


def test_area_is_uniform_and_ratio_log_uniform():
    # Up to half of the area every draw fits, so nothing is rejected.
    count, side = 6000, 4000
    sizes = np.full((count, 2), side, np.int32)
    boxes = _draw_crops(jax.random.key(0), sizes, (0.08, 0.5), RATIO)
    top, left, height, width = np.asarray(boxes, float).T
    area = stats.uniform(0.08, 0.42)
    assert stats.kstest(height * width / side**2, area.cdf).pvalue > 1e-3
    logs = stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3))
    assert stats.kstest(np.log(width / height), logs.cdf).pvalue > 1e-3
    places = top / (side - height), left / (side - width)
    for place in places:
        assert stats.kstest(place, stats.uniform.cdf).pvalue > 1e-3
    for a, b in ((height * width, width / height), places):
        assert abs(stats.pearsonr(a, b).statistic) < 0.04


def test_the_fallback_is_the_central_crop():
    # A scale above 1 makes every draw too large. (In the first two all others are.)
    sizes = np.array([(20, 1000), (1001, 30), (90, 100), (1, 1)], np.int32)
    found = _draw_crops(jax.random.key(0), sizes, (4.0, 5.0), RATIO)
    rng = np.random.default_rng(0)
    expected = [draw_by_loops(rng, size, (4, 5), RATIO) for size in sizes]
    np.testing.assert_array_equal(found, expected)
    assert expected[:2] == [(0, 486, 20, 27), (480, 0, 40, 30)]
    found = _draw_crops(jax.random.key(0), sizes, SCALE, RATIO)
    np.testing.assert_array_equal(found[:2], expected[:2])


def test_random_resized_crop_sees_only_the_image():
    canvas, sizes = photographs()
    key = jax.random.key(3)
    found = np.asarray(_crop(key, canvas, sizes, 24))
    assert found.shape == (4, 24, 24, 3) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    row, column = np.arange(96)[:, None], np.arange(96)
    beyond = (row >= sizes[:, :1, None]) | (column >= sizes[:, 1:, None])
    blank = np.where(beyond[..., None], 255, canvas).astype(np.uint8)
    assert (blank != canvas).any()
    np.testing.assert_array_equal(_crop(key, blank, sizes, 24), found)
    boxes = _draw_crops(key, sizes, SCALE, RATIO)
    np.testing.assert_allclose(found, _resize(canvas, boxes, 24), atol=1e-6)


def test_half_of_the_images_are_mirrored():
    images = np.arange(10_000 * 6, dtype=np.float32).reshape(10_000, 1, 3, 2)
    found = np.asarray(_flip(jax.random.key(0), images))
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert stats.binomtest(int(mirrored.sum()), 10_000).pvalue > 1e-3
    again = (mirrored[1:] == mirrored[:-1]).sum()  # neighbours do not share a coin
    assert stats.binomtest(int(again), 9_999).pvalue > 1e-3


def jitter_by_loops(image, order, amounts):
    """The three operations, one after the other, as CutMix-PyTorch has them."""
    x = image.astype(np.float64)
    for kind, amount in zip(order, amounts, strict=True):
        grey = x @ np.array([0.299, 0.587, 0.114])
        reference = (0, grey.mean(), grey[..., None])[kind]
        x = x + amount * (reference - x)
    return x


def test_jitter_against_one_operation_after_the_other():
    images = np.random.default_rng(0).random((24, 6, 5, 3), np.float32)
    key = jax.random.key(0)
    order, amounts = map(np.asarray, _draw_jitter(key, 24, 0.4))
    assert len(np.unique(order, axis=0)) == 6
    found = np.asarray(_jitter(key, images, 0.4))
    expected = [
        jitter_by_loops(*one) for one in zip(images, order, amounts, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.max() > 1  # nothing is clipped


def test_amounts_and_orders_of_jitter_are_uniform():
    order, amounts = _draw_jitter(jax.random.key(0), 10_000, 0.4)
    uniform = stats.uniform(-0.4, 0.8)
    for column in np.asarray(amounts).T:
        assert stats.kstest(column, uniform.cdf).pvalue > 1e-3
    places = np.asarray(order) @ np.array([9, 3, 1])
    counts = np.unique(places, return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_lighting_has_the_covariance_of_its_axes():
    images = np.zeros((20_000, 1, 2, 3), np.float32)
    found = np.asarray(_light(jax.random.key(0), images, 0.1), np.float64)
    np.testing.assert_array_equal(found[:, 0, 0], found[:, 0, 1])
    vectors = np.array(
        [
            [-0.5675, 0.7192, 0.4009],
            [-0.5808, -0.0045, -0.8140],
            [-0.5836, -0.6948, 0.4203],
        ]
    )
    axes = vectors * [0.2175, 0.0188, 0.0045] * 0.1
    gains = found[:, 0, 0]
    # In coordinates of the axes: independent, of variance one.
    white = np.linalg.solve(axes, gains.T)
    np.testing.assert_allclose(np.cov(white), np.eye(3), atol=0.04)
    np.testing.assert_allclose(np.cov(gains.T), axes @ axes.T, rtol=0.05)
    for alpha in white:
        assert stats.kstest(alpha, stats.norm.cdf).pvalue > 1e-3


def test_standard_is_its_parts_and_a_function_of_the_key():
    canvas, sizes = photographs()
    key = jax.random.key(0)
    found = _standard(key, canvas, sizes, side=24)
    assert found.shape == (4, 24, 24, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(_standard(key, canvas, sizes, side=24), found)
    assert (_standard(jax.random.key(1), canvas, sizes, side=24) != found).any()

    keys = jax.random.split(key, 4)
    images = _flip(keys[1], _crop(keys[0], canvas, sizes, 24))
    images = _light(keys[3], _jitter(keys[2], images, 0.4), 0.1)
    np.testing.assert_allclose(found, images, atol=2e-6)


def test_standard_with_nothing_to_do():
    canvas, _ = photographs()
    sizes = np.full((4, 2), 96, np.int32)
    plain = {"crop": False, "flip": False, "jitter": 0.0, "lighting": 0.0}
    found = _standard(jax.random.key(0), canvas, sizes, side=96, **plain)
    np.testing.assert_allclose(found, canvas / np.float32(255), rtol=1e-6)
