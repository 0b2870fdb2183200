import functools

import jax
import numpy as np
import pytest
from scipy import stats

from jdissect.augment.mix import (
    RECIPES,
    _box,
    _cut,
    _draw,
    _peaks,
    _remaining,
    _uniform_centres,
    mix,
)
from jdissect.base.errors import UserError
from jdissect.ops.saliency import fine_grained

BATCH, SHAPE = 12, (21, 30)
LABELS = np.arange(100, 100 + BATCH)
MEAN, STD = np.array([0.4, 0.5, 0.6], np.float32), np.float32(0.25)


def normalize(images):
    return (images - MEAN) / STD


@functools.partial(jax.jit, static_argnums=0, static_argnames=("once", "group", "side"))
def _mix(recipe, key, images, *, once, group, side):
    """What `mix` gives, and the random numbers that it uses."""
    found = mix(
        recipe,
        key,
        images,
        LABELS,
        normalize=normalize,
        one_box_per_batch=once,
        group=group,
        cutout_side=side,
    )
    if recipe in ("none", "cutout"):
        return found, None
    if once is None:
        once = recipe != "saliencymix"
    draws = _draw(recipe, key, BATCH, SHAPE, alpha=1.0, group=group, once=once)
    return found, draws


def run(recipe, seed, images, *, once=None, group=0, side=None):
    key, options = jax.random.key(seed), {"once": once, "group": group, "side": side}
    found = _mix(recipe, key, images, **options)
    return jax.tree.map(np.asarray, found)


_saliency = jax.jit(fine_grained)


def photographs(seed=0):
    """Noise of values a little beyond [0, 1] with a patch that stands out."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.1, 0.6, (BATCH, *SHAPE, 3)).astype(np.float32)
    for image in images:
        y, x = rng.integers(0, SHAPE)
        image[y : y + 4, x : x + 4] += 0.6
    return images


def coded():
    """Images whose red tells their number, at every pixel."""
    images = photographs()
    images[..., 0] = np.arange(BATCH)[:, None, None] / 20
    return images


def decoded(images):
    """The numbers of the images that normalized pixels come from."""
    numbers = (images[..., 0] * STD + MEAN[0]) * 20
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-3)
    return np.rint(numbers).astype(int)


def paste(images, partner, share, ys, xs):
    """CutMix's pixels and weights by loops; boxes centred at (ys, xs)."""
    height, width = SHAPE
    mixed, weights = images.copy(), []
    for i in range(BATCH):
        cut = np.sqrt(np.float32(1) - share[i])
        tall, wide = int(np.float32(height) * cut), int(np.float32(width) * cut)
        top, bottom = max(ys[i] - tall // 2, 0), min(ys[i] + tall // 2, height)
        left, right = max(xs[i] - wide // 2, 0), min(xs[i] + wide // 2, width)
        source = images[partner[i]]
        mixed[i, top:bottom, left:right] = source[top:bottom, left:right]
        weights.append(1 - (bottom - top) * (right - left) / (height * width))
    return mixed, np.float32(weights)


def check(found, images, partner, weights):
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.first, LABELS)
    np.testing.assert_array_equal(found.second, LABELS[partner])
    np.testing.assert_array_equal(found.weight, weights)
    assert found.first.dtype == found.second.dtype == np.int32
    assert found.images.dtype == found.weight.dtype == np.float32


ALONE, FULL = np.arange(BATCH), np.ones(BATCH)


def test_none_only_normalizes():
    images = photographs()
    found, _ = run("none", 0, images)
    np.testing.assert_allclose(found.images, normalize(images), rtol=1e-6)
    check(found, found.images, ALONE, FULL)


@pytest.mark.parametrize("side, reach", [(None, 5), (7, 3)])  # half of 21 is 10
def test_cutout(side, reach):
    images = photographs()
    found, _ = run("cutout", 0, images, side=side)
    expected = run("none", 0, images)[0].images.copy()
    centres = np.asarray(_uniform_centres(jax.random.key(0), BATCH, SHAPE))
    assert len(np.unique(centres, axis=0)) > BATCH / 2
    for image, (y, x) in zip(expected, centres, strict=True):
        # After normalization, zero is the mean, not black.
        image[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach] = 0
    check(found, expected, ALONE, FULL)


@pytest.mark.parametrize("once", [None, False])
def test_mixup(once):
    images = photographs()
    found, (partner, share, _) = run("mixup", 0, images, once=once)
    assert len(np.unique(share)) == (1 if once is None else BATCH)
    x, weight = normalize(images), share[:, None, None, None]
    mixed = weight * x + (1 - weight) * x[partner]
    np.testing.assert_allclose(found.images, mixed, atol=2e-6)
    check(found, found.images, partner, share)


@pytest.mark.parametrize("once", [None, False])
def test_cutmix(once):
    images = coded()
    normalized = run("none", 0, images)[0].images
    for seed in range(8):
        found, (partner, share, centres) = run("cutmix", seed, images, once=once)
        mixed, weights = paste(normalized, partner, share, *centres.T)
        check(found, mixed, partner, weights)
        if once is None:
            assert len(np.unique(share)) == len(np.unique(found.weight)) == 1
        else:
            assert len(np.unique(share)) == BATCH
            assert len(np.unique(found.weight)) > BATCH / 2


@pytest.mark.parametrize(
    "once, group", [pytest.param(None, 4, marks=pytest.mark.slow), (True, 0)]
)
def test_saliencymix(once, group):
    images = photographs()
    normalized = run("none", 0, images)[0].images
    pixels = np.uint8(np.clip(np.rint(255 * images), 0, 255))
    peaks = np.asarray(_saliency(pixels)).reshape(BATCH, -1).argmax(axis=1)
    assert len(set(peaks)) == BATCH
    for seed in range(4):
        found, (partner, share, _) = run(
            "saliencymix", seed, images, once=once, group=group
        )
        assert len(np.unique(share)) == 1  # one lambda a batch
        partner = partner + (ALONE // group * group if group else 0)
        sources = np.full(BATCH, partner[0]) if once else partner
        ys, xs = np.divmod(peaks[sources], SHAPE[1])
        mixed, weights = paste(normalized, partner, share, ys, xs)
        check(found, mixed, partner, weights)


@pytest.mark.parametrize(
    "recipe, once, group",
    [("cutmix", False, 0), ("cutmix", False, 4), ("saliencymix", None, 4)],
)
def test_weights_are_shares_of_pixels(recipe, once, group):
    images, seen, far = coded(), set(), False
    for seed in range(20):
        found, _ = run(recipe, seed, images, once=once, group=group)
        partner = found.second - LABELS[0]
        assert sorted(partner) == list(range(BATCH))
        far |= (partner // 4 != ALONE // 4).any()
        numbers = decoded(found.images)
        own = numbers == ALONE[:, None, None]
        assert (own | (numbers == partner[:, None, None])).all()
        mixed = partner != ALONE
        kept = own.sum(axis=(1, 2))[mixed]
        counted = np.float32(kept / (SHAPE[0] * SHAPE[1]))
        np.testing.assert_array_equal(found.weight[mixed], counted)
        seen |= set(kept.tolist())
    assert len(seen) > 20
    assert far == (group == 0)  # a group keeps to itself


def test_weight_is_rounded_once_for_every_area():
    shape = (224, 224)
    side = np.arange(225)
    tall, wide = (part.ravel() for part in np.meshgrid(side, side))
    box = np.stack([np.zeros((len(tall), 2)), np.stack([tall, wide], 1)], axis=1)
    found = jax.jit(_remaining, static_argnums=1)(box.astype(np.int32), shape)
    kept = 224 * 224 - tall * wide
    np.testing.assert_array_equal(found, np.float32(kept / (224 * 224)))


def test_boxes_stay_inside_and_lose_odd_pixels():
    height, width = SHAPE
    y, x, tall, wide = (
        part.ravel()
        for part in np.mgrid[:height, :width:3, : height + 1 : 4, : width + 1 : 5]
    )
    centre, cut = np.stack([y, x], 1), np.stack([tall, wide], 1)
    box = np.asarray(jax.jit(_box, static_argnums=2)(centre, cut, SHAPE))
    assert (box >= 0).all() and (box[:, 0] <= box[:, 1]).all()
    assert (box[:, 1] <= SHAPE).all()
    inner = (centre - cut // 2 >= 0) & (centre + cut // 2 <= SHAPE)
    np.testing.assert_array_equal(
        (box[:, 1] - box[:, 0])[inner], (cut - cut % 2)[inner]
    )
    share = np.array([0, 0.25, 0.5, 0.999, 1], np.float32)
    expected = [[21, 30], [18, 25], [14, 21], [0, 0], [0, 0]]
    assert np.asarray(_cut(share, SHAPE)).tolist() == expected


@pytest.mark.parametrize("alpha", [1.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_draws_are_distributed_as_said(alpha):
    def drawing(key):
        options = {"alpha": alpha, "group": 4, "once": False}
        return _draw("cutmix", key, 10_000, SHAPE, **options)

    drawn = jax.jit(drawing)(jax.random.key(0))
    partner, share, centres = jax.tree.map(np.asarray, drawn)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for places, size in zip(centres.T, SHAPE, strict=True):
        counts = np.bincount(places, minlength=size)
        assert len(counts) == size and stats.chisquare(counts).pvalue > 1e-3
    # All orders of a group are equally likely.
    groups = partner.reshape(-1, 4)
    np.testing.assert_array_equal(np.sort(groups), np.tile(np.arange(4), (2500, 1)))
    counts = np.unique(groups @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_a_key_decides_the_batch(recipe):
    images, group = photographs(), 4 if recipe == "saliencymix" else 0
    first, same, other = (
        run(recipe, seed, images, group=group)[0] for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, same)
    assert (first.images != other.images).any()


def test_peaks_are_of_eight_bits_and_first_in_raster_order():
    images = np.full((BATCH, *SHAPE, 3), 0.5, np.float32)
    images[0, 3, 5] = images[0, 12, 19] = 7.0  # clipped to 1
    images[1] += 0.4 / 255 * (np.arange(30) % 2)[:, None]  # rounded away
    images[2, 20, 29] = -1.0
    found = np.asarray(jax.jit(_peaks)(images))
    assert found[1].tolist() == found[3].tolist() == [0, 0]
    assert found[2].tolist() == [20, 29]
    pixels = np.uint8(np.rint(255 * np.clip(images, 0, 1)))
    salient = np.asarray(_saliency(pixels))[0]
    ties = np.argwhere(salient == salient.max())
    assert found[0].tolist() == ties[0].tolist()


def test_mistakes_are_named():
    images, key = photographs(), jax.random.key(0)
    call = functools.partial(mix, normalize=normalize)
    with pytest.raises(UserError, match="'cutmixup'.*none, cutout, mixup, cutmix, sal"):
        call("cutmixup", key, images, LABELS)
    for alpha in (0, -1.0, float("nan")):
        with pytest.raises(UserError, match="alpha is .*above 0"):
            call("mixup", key, images, LABELS, alpha=alpha)
    for group in (5, -2):
        with pytest.raises(UserError, match=f"group is {group}.*12 images"):
            call("cutmix", key, images, LABELS, group=group)
