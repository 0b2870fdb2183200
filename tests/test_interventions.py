"""Zeroed units, against loops, and where it is known what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdissect import interventions, models
from jdissect.models.layers import spatial_mean
from tests.small_segmenters import draw


def network(rng, images=40, units=7, classes=5):
    pooled = rng.random((images, units), np.float32)
    kernel = rng.normal(size=(units, classes)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    labels = rng.integers(0, classes, images).astype(np.int32)
    return pooled, kernel, bias, labels


def test_single_units_against_a_loop():
    pooled, kernel, bias, labels = network(np.random.default_rng(0))
    right, loss = interventions.single_units(pooled, kernel, bias, labels, 5)

    def log_probability(logits):
        logits = logits.astype(np.float64)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    rows = np.arange(len(labels))
    before = log_probability(pooled @ kernel + bias)[rows, labels]
    for unit in range(7):
        without = pooled.copy()
        without[:, unit] = 0
        after = log_probability(without @ kernel + bias)
        for number in range(5):
            here = labels == number
            want = (after.argmax(axis=1) == labels)[here].sum()
            assert right[unit, number] == want
            lost = (before - after[rows, labels])[here].sum()
            assert loss[unit, number] == pytest.approx(lost, abs=2e-4)


@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet18", {"width": 8, "classes": 6}),
        ("resnet50", {"width": 4, "classes": 6}),
        ("efficientnet_lite0", {"classes": 6}),
    ],
)
def test_the_linear_path_is_the_honest_one(name, options):
    """Zeroing means of the last maps is zeroing the maps and running the rest."""
    architecture = {"name": name, **options}
    apply, params = models.for_inference(architecture, draw(architecture, 0))
    layer = models.build_abstract(**architecture).endpoint_names[-1]
    images = np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype(np.float32)
    whole, features = jax.jit(apply)(params, images)
    pooled = spatial_mean(features[layer])
    mask = np.ones(pooled.shape[1], np.float32)
    mask[::3] = 0
    run = jax.jit(lambda params, images: apply(params, images, None, {layer: mask}))
    logits, masked = run(params, images)
    assert not np.asarray(masked[layer])[..., ::3].any()
    fc = params["fc"]
    found = interventions.logits_without(
        pooled, fc["kernel"][...], fc["bias"][...], mask
    )
    scale = np.abs(np.asarray(whole)).max()
    np.testing.assert_allclose(found, logits, atol=1e-5 * scale)
    assert np.abs(np.asarray(logits - whole)).max() > 1e-3 * scale


def test_masks_in_the_middle():
    model = models.build("resnet18", width=4, classes=3, rngs=models.nnx.Rngs(1))
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    plain, features = model(images)
    ones = {"layer2": jnp.ones(8)}
    same, _ = model(images, masks=ones)
    np.testing.assert_array_equal(plain, same)
    none, later = model(images, masks={"layer2": jnp.zeros(8)})
    assert not np.asarray(later["layer2"]).any()
    np.testing.assert_array_equal(later["layer1"], features["layer1"])
    assert np.abs(np.asarray(later["layer3"] - features["layer3"])).max() > 0
    np.testing.assert_allclose(none[0], none[1], rtol=1e-6)  # nothing of the image
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        model(images, masks={"layer9": jnp.ones(8)})


def test_a_planted_unit_decides_its_class():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 50).astype(np.int32)
    pooled = rng.random((150, 6)).astype(np.float32) * 0.1
    pooled[labels == 1, 3] += 1
    pooled[labels == 2, 5] += 1
    kernel = np.zeros((6, 3), np.float32)
    kernel[3, 1] = kernel[5, 2] = 1
    bias = np.array([0.5, 0, 0], np.float32)
    right, loss = interventions.single_units(pooled, kernel, bias, labels, 3)
    want = np.full((6, 3), 50)
    want[3, 1] = want[5, 2] = 0
    np.testing.assert_array_equal(right, want)
    assert np.asarray(loss)[:, 1].argmax() == 3 and np.asarray(loss)[:, 2].argmax() == 5

    def right_without(zeroed):
        mask = (~zeroed).astype(np.float32)
        logits = interventions.logits_without(pooled, kernel, bias, mask)
        return np.asarray(interventions.is_right(logits, labels))

    before = right_without(np.zeros(6, bool))
    assert before.all()
    detectors = np.isin(np.arange(6), [3, 5])
    found = interventions.contrast(right_without, detectors, before, seed=0, draws=50)
    assert found.size == 2
    assert found.detectors.value == pytest.approx(-100 * 2 / 3)
    assert found.others == interventions.Change(0, 0, 0)
    assert found.difference.high < -50
    swapped = interventions.contrast(right_without, ~detectors, before, 0, draws=50)
    assert swapped.detectors == found.others
    everything = np.ones(6, bool)
    assert interventions.contrast(right_without, everything, before, 0) is None


def test_paired_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    inside, widths = 0, []
    for trial in range(200):
        before = rng.random(400) < 0.7
        after = np.where(before, rng.random(400) < 0.9, rng.random(400) < 0.1)
        change = interventions.paired_change(before, after, seed=trial)
        truth = 100 * (0.3 * 0.1 - 0.7 * 0.1)
        inside += change.low <= truth <= change.high
        widths.append(change.high - change.low)
    assert inside >= 0.9 * 200 and np.mean(widths) < 8
    same = interventions.paired_change(before, before, 0)
    assert same == interventions.Change(0, 0, 0)


def test_ties_go_to_the_lower_class():
    logits = jnp.array([[1.0, 1.0, 0.0]])
    assert interventions.is_right(logits, jnp.array([0]))[0]
    assert not interventions.is_right(logits, jnp.array([1]))[0]
    probability = interventions.true_log_probability(logits, jnp.array([2]))
    want = jax.nn.log_softmax(logits)[0, 2]
    assert probability[0] == pytest.approx(float(want))
