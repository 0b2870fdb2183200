"""Convolutions in training compute what they compute elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdissect.models.layers import ConvNorm
from jdissect.ops import winograd_gradient
from jdissect.training import convolution


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"fast": ""}])
def test_a_convolution_in_training_is_the_same(options, monkeypatch):
    """Whatever form it has; one of stride 2, or not `fast`, has but one."""
    options = {"fast": "winograd", **options}
    layer = ConvNorm(4, 6, 3, padding=((1, 1), (1, 1)), rngs=nnx.Rngs(0), **options)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    convolution.for_training(layer)
    trained, same, _ = nnx.split(layer, nnx.Param, ...)
    assert jax.tree.structure(same) == jax.tree.structure(params)
    assert (trained == graph) == (len(options) > 1 or not options["fast"])
    monkeypatch.setattr(winograd_gradient, "_FEWEST", 1)
    monkeypatch.setattr(winograd_gradient, "_FEWEST_TILES", 1)
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 4)).astype(np.float32)
    images = jnp.asarray(images)

    def value(params, images, graph):
        return jnp.square(nnx.merge(graph, params, rest)(images)).sum()

    for one, other in zip(
        jax.tree.leaves(jax.grad(value, (0, 1))(params, images, trained)),
        jax.tree.leaves(jax.grad(value, (0, 1))(params, images, graph)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
