"""What the recipes make of photographs is what training sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdissect import augment, scenes
from jdissect.models import preprocess
from jdissect.report.figures import mixed_pictures


@pytest.fixture(scope="module")
def scene_pictures():
    source = scenes.open_scenes("probe", 3)
    return np.stack([source.read(number).pixels for number in range(3)])


def normalize(images):
    return preprocess.normalize(images * 255, preprocess.IMAGENET)


@pytest.mark.parametrize("recipe", augment.RECIPES)
def test_the_pictures_are_those_of_training(recipe, scene_pictures):
    made = mixed_pictures.mixed(recipe, scene_pictures, seed=7)
    key = jax.random.fold_in(jax.random.key(7), augment.RECIPES.index(recipe))
    mix = jax.jit(
        lambda key, images: augment.mix(
            recipe, key, images, jnp.arange(3), normalize=normalize
        )
    )
    images = scene_pictures.astype(np.float32) / 255
    for attempt in range(mixed_pictures.TRIES):
        mixture = mix(jax.random.fold_in(key, attempt), images)
        others = np.asarray(mixture.second != mixture.first)
        weight = np.asarray(mixture.weight)
        if recipe in ("none", "cutout"):
            assert not others.any() and (weight == 1).all()
            break
        if others.all() and (weight >= 0.25).all() and (weight <= 0.75).all():
            break
    else:
        pytest.fail("no such draw")
    np.testing.assert_array_equal(made.weight, weight)
    np.testing.assert_array_equal(made.partner, mixture.second)
    mean, std = preprocess.IMAGENET.mean, preprocess.IMAGENET.std
    expected = 255 * (np.asarray(mixture.images) * std + mean)
    assert np.abs(made.images - expected).max() < 0.51  # rounded to whole levels
    if recipe == "none":
        np.testing.assert_array_equal(made.images, scene_pictures)


def test_pasted_pixels_are_the_sources(scene_pictures):
    for recipe in ("cutmix", "saliencymix"):
        made = mixed_pictures.mixed(recipe, scene_pictures, seed=1)
        sources = scene_pictures[made.partner]
        own = (made.images == scene_pictures).all(axis=-1)
        pasted = (made.images == sources).all(axis=-1)
        assert (own | pasted).all()
        share = np.mean(~own, axis=(1, 2))
        assert np.all(share <= 1 - made.weight + 1e-6)  # some pixels are alike
        assert np.all(share > 0.8 * (1 - made.weight))


def test_letters():
    numbers = (0, 25, 26, 27, 701, 702)
    letters = ["A", "Z", "AA", "AB", "ZZ", "AAA"]
    assert [mixed_pictures.letter(number) for number in numbers] == letters
