"""The cheaper form of a convolution over maps of several sizes is the plain form."""

import jax
import numpy as np
import pytest
from flax import nnx

from jdissect import models
from jdissect.models.layers import ConvNorm, fold_batch_norm
from jdissect.models.pyramid import prepare, pyramid_conv
from jdissect.models.resnet import pad
from tests.compiling import QUICKLY
from tests.small_segmenters import PPM, UPERNET, draw


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        # UPerNet's fusion, and pyramid pooling.
        pytest.param([(16, 16), (8, 8), (4, 4), (2, 2)], marks=pytest.mark.slow),
        pytest.param(
            [(12, 12), (1, 1), (2, 2), (3, 3), (6, 6)], marks=pytest.mark.slow
        ),
        [(9, 14), (5, 7), (9, 14), (1, 3)],
    ],
)
def test_it_is_the_plain_form(sizes, folded):
    rng = np.random.default_rng(0)
    channels = [3 + index for index in range(len(sizes))]
    layer = ConvNorm(
        sum(channels), 10, 3, padding=pad(3), folded=folded, rngs=nnx.Rngs(0)
    )
    if folded:
        layer.conv.bias[...] = rng.normal(size=10)
    else:
        layer.norm.mean[...] = rng.normal(size=10)
        layer.norm.bias[...] = rng.normal(size=10)
    maps = [
        rng.normal(size=(2, *size, count)).astype(np.float32)
        for size, count in zip(sizes, channels, strict=True)
    ]
    plain = convolve(layer, maps, plain=True)
    assert relative(convolve(layer, maps), plain) < 1e-5
    prepare(layer, channels)
    assert relative(convolve(layer, maps), plain) < 1e-5


def convolve(layer, maps, **options):
    compiled = jax.jit(
        lambda maps: pyramid_conv(layer, maps, **options), compiler_options=QUICKLY
    )
    return compiled(maps)


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(UPERNET, marks=pytest.mark.slow), PPM],
    ids=lambda a: a["name"],
)
def test_networks_compute_the_same_in_all_forms(architecture):
    """By definition, cheaper, and prepared for a CPU."""
    parameters = draw(architecture, 0)
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    model = models.build_abstract(**architecture, folded=True)
    apply, params = models.as_function(model)
    folded = fold_batch_norm(parameters, model.epsilon)
    params = models.with_parameters(params, folded)
    plain, cheap = (run(apply, params, images, plain=form) for form in (True, False))
    prepared = run(*models.for_inference(architecture, parameters), images)
    for name in plain:
        assert plain[name].shape[:3] == (1, 56, 56)
        assert relative(cheap[name], plain[name]) < 1e-5
        assert relative(prepared[name], plain[name]) < 1e-5


def run(apply, params, images, **options):
    compiled = jax.jit(
        lambda params, images: apply(params, images, **options),
        compiler_options=QUICKLY,
    )
    return compiled(params, images)


@pytest.mark.slow
def test_the_plain_form_at_the_published_size():
    """UPerNet's fusion: 4 x 512 channels at 64x64."""
    layer = ConvNorm(2048, 512, 3, padding=pad(3), folded=True, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    maps = [
        np.maximum(rng.normal(size=(1, size, size, 512)), 0).astype(np.float32)
        for size in (64, 32, 16, 8)
    ]
    plain = jax.jit(lambda maps: pyramid_conv(layer, maps, plain=True))(maps)
    prepare(layer, [512] * 4)
    cheap = jax.jit(lambda maps: pyramid_conv(layer, maps))(maps)
    assert relative(cheap, plain) < 1e-5
