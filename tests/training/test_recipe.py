"""Learning rates, groups of batch normalization, the start, errors and intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.evaluation import classifier
from jdissect.training import batch_norm, recipe
from jdissect.training.initialization import initial_parameters


@pytest.mark.parametrize("milestones", [(75, 150, 225), (0.25, 0.5, 0.75)])
def test_learning_rate_falls_after_the_published_epochs(milestones):
    steps = 5004
    drops = recipe.boundaries(milestones, epochs=300, steps_per_epoch=steps)
    rate = recipe.learning_rate(0.1, drops)
    expected = {0: 0.1, 74: 0.1, 75: 0.01, 149: 0.01, 150: 1e-3, 225: 1e-4, 299: 1e-4}
    for epoch, value in expected.items():
        for step in (epoch * steps, epoch * steps + steps - 1):
            np.testing.assert_allclose(float(rate(jnp.int32(step))), value, rtol=1e-6)


@pytest.mark.parametrize("steps", [37, 777, 1000])
def test_polynomial_ends_at_zero(steps):
    """Compiled, the one of optax raises a number below zero to a power there."""
    rate = jax.jit(recipe.polynomial(0.02, steps))
    published = jax.jit(optax.polynomial_schedule(0.02, 0.0, 0.9, steps))
    assert rate(steps) == rate(steps + 1) == 0
    assert np.isnan(published(steps))
    assert rate(steps - 1) == published(steps - 1) > 0


@pytest.mark.parametrize("milestones", [(150, 75), (0, 1), (-1,), ("x",)])
def test_bad_milestones(milestones):
    with pytest.raises(UserError, match="config.train.milestones"):
        recipe.boundaries(milestones, 300, 10)


def test_groups_that_fit():
    assert batch_norm.fitting(256, 1)[-3:] == [64, 128, 256]
    assert batch_norm.fits(64, 256, 8)  # a group on two devices
    assert batch_norm.fits(64, 256, 2)  # two groups on a device
    assert not batch_norm.fits(48, 256, 1)
    assert not batch_norm.fits(2, 12, 4)  # three images a device, groups of two
    assert batch_norm.fitting(12, 4) == [1, 3, 6, 12]


def test_start():
    values = initial_parameters({"name": "resnet18", "width": 32, "classes": 9}, 5)
    model = models.build_abstract("resnet18", width=32, classes=9)
    assert {k: v.shape for k, v in values.items()} == models.shapes(model)
    kernel = values["layer2.0.conv1.conv.kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.02)
    assert abs(kernel.mean()) < 1e-3
    assert values["fc.kernel"].shape == (256, 9)
    for name in ("fc.kernel", "fc.bias"):
        assert 0.04 < np.abs(values[name]).max() <= 1 / 16
    assert (values["stem.norm.scale"] == 1).all() and (
        values["stem.norm.var"] == 1
    ).all()
    assert not values["stem.norm.bias"].any() and not values["stem.norm.mean"].any()
    other = initial_parameters({"name": "resnet18", "width": 32, "classes": 9}, 6)
    assert not np.array_equal(other["stem.conv.kernel"], values["stem.conv.kernel"])
    first, second = (values[f"layer2.1.conv{n}.conv.kernel"] for n in (1, 2))
    assert not np.array_equal(first, second)


def test_ranks_and_wrong():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 9)).astype(np.float32)  # many ties
    labels = rng.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = (order == labels[:, None]).argmax(axis=1)
    found = np.asarray(classifier.ranks(jnp.asarray(logits), jnp.asarray(labels)))
    np.testing.assert_array_equal(found, expected)
    valid = np.arange(200) < 150
    wrong = classifier.count_wrong(jnp.asarray(logits), jnp.asarray(labels), valid)
    assert wrong.tolist() == [(expected[:150] >= 1).sum(), (expected[:150] >= 5).sum()]
    # Not a number is never right.
    nothing = classifier.count_wrong(logits * np.nan, jnp.asarray(labels), valid)
    assert nothing.tolist() == [150, 150]


def test_wilson_interval():
    # Brown, Cai & DasGupta (2001); the ends solve |p - share| = z sqrt(p (1 - p) / n).
    for wrong, images in ((22, 200), (0, 50), (50, 50), (1, 3)):
        share = wrong / images
        for end in classifier.wilson_interval(wrong, images):
            deviation = 1.959963984540054 * (end * (1 - end) / images) ** 0.5
            assert abs(abs(end - share) - deviation) < 1e-9
