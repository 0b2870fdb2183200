"""Endpoints of consecutive stages, and masks on them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.models.endpoints import run_stages
from tests.compiling import QUICKLY
from tests.small_segmenters import draw

STAGES = [("double", lambda x: 2 * x), ("square", lambda x: x * x)]
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)


def head(maps):
    return maps.sum(axis=(1, 2))


def test_a_mask_acts_on_all_that_follows():
    mask = np.array([1, 0, 1, 0], np.float32)
    logits, maps = run_stages(STAGES, IMAGES, head, None, {"double": mask})
    np.testing.assert_array_equal(maps["double"], 2 * IMAGES * mask)
    np.testing.assert_array_equal(maps["square"], (2 * IMAGES * mask) ** 2)
    np.testing.assert_array_equal(logits, head((2 * IMAGES * mask) ** 2))


def test_masks_on_several_stages():
    masks = {"double": np.float32([3, 1, 1, 1]), "square": np.float32([1, 0, 1, 1])}
    _, maps = run_stages(STAGES, IMAGES, head, "square", masks)
    expected = (2 * IMAGES * masks["double"]) ** 2 * masks["square"]
    np.testing.assert_array_equal(maps["square"], expected)


def test_what_no_stage_reads_is_computed_beside():
    beside = {"triple": lambda x: 3 * x}
    run = functools.partial(run_stages, STAGES, IMAGES, head, beside=beside)
    logits, maps = run(("square", "triple"))
    assert logits is None
    np.testing.assert_array_equal(maps["triple"], 3 * IMAGES)
    np.testing.assert_array_equal(maps["square"], (2 * IMAGES) ** 2)
    assert list(run("triple")[1]) == ["triple"]
    assert list(run(None, default=("square",))[1]) == ["square"]


def test_an_unknown_stage_is_named():
    with pytest.raises(UserError, match="no layer 'cube'"):
        run_stages(STAGES, IMAGES, head, (), {"cube": np.ones(4, np.float32)})


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_a_masked_unit_is_as_if_its_readers_were_zero(layer):
    """Of a ResNet: zeroed weights of whatever reads the unit do the same."""
    architecture = {"name": "resnet18", "width": 4, "classes": 5}
    values = draw(architecture, 0)
    unit = 3
    cut = dict(values)
    if layer == "layer4":
        readers = ["fc.kernel"]
    else:
        readers = [
            name
            for name in values
            if re.fullmatch(r"layer3\.0\.(conv1|shortcut)\..*kernel", name)
        ]
        assert len(readers) == 2
    for name in readers:
        kernel = values[name].copy()
        kernel[..., unit, :] = 0
        cut[name] = kernel
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64, 3)), "f4")

    def logits(parameters, masks=None):
        apply, params = models.for_inference(architecture, parameters, fold=False)
        return jax.jit(
            lambda p: apply(p, images, (), masks)[0], compiler_options=QUICKLY
        )(params)

    mask = np.ones(32 if layer == "layer4" else 8, np.float32)
    mask[unit] = 0
    masked = logits(values, {layer: mask})
    np.testing.assert_allclose(masked, logits(cut), rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(masked) - np.asarray(logits(values))).max() > 1e-3


@pytest.mark.parametrize(
    ("layer", "fold"),
    [
        ("conv1", True),
        pytest.param("conv1", False, marks=pytest.mark.slow),
        pytest.param("layer2.0", True, marks=pytest.mark.slow),
    ],
)
def test_a_masked_unit_within_a_stage(layer, fold):
    """Zeroed weights of the unit do the same; batch normalization of 0 stays."""
    architecture = {"name": "resnet18", "width": 4, "classes": 5}
    values = draw(architecture, 0)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 64, 64, 3)), "f4")
    unit, cut = 1, dict(values)
    if layer == "conv1":
        names = ["stem.conv.kernel"]
    else:  # the block's last convolution, its mean, and its shortcut's
        names = [f"layer2.0.{conv}.conv.kernel" for conv in ("conv2", "shortcut")]
        for conv in ("conv2", "shortcut"):
            for part in ("bias", "mean"):
                name = f"layer2.0.{conv}.norm.{part}"
                cut[name] = cut[name].copy()
                cut[name][unit] = 0
    for name in names:
        cut[name] = cut[name].copy()
        cut[name][..., unit] = 0
    mask = np.ones(4 if layer == "conv1" else 8, np.float32)
    mask[unit] = 0

    def logits(parameters, fold, masks=None):
        apply, params = models.for_inference(architecture, parameters, fold=fold)
        return np.asarray(
            jax.jit(lambda p: apply(p, images, (), masks)[0], compiler_options=QUICKLY)(
                params
            )
        )

    masked = logits(values, fold, {layer: mask})
    np.testing.assert_allclose(masked, logits(cut, False), rtol=1e-4, atol=1e-4)
    assert np.abs(masked - logits(values, False)).max() > 1e-3
