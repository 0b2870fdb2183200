import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jdissect.models import layers

NHWC = ("NHWC", "HWIO", "NHWC")


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (2, 2)), ((0, 1), (1, 0))])
@pytest.mark.parametrize("size", [(9, 12), (8, 7)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_depthwise_conv_is_xlas(stride, padding, size, kernel_size):
    images, kernel = draw(2, *size, 6), draw(kernel_size, kernel_size, 1, 6)
    expected = lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=NHWC,
        feature_group_count=6,
    )
    actual = layers.depthwise_conv(images, kernel, (stride, stride), padding)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 10), (8, 8)])
def test_pointwise_conv_is_xlas(stride, size):
    images, kernel = draw(2, *size, 5), draw(1, 1, 5, 3)
    expected = lax.conv_general_dilated(
        images, kernel, (stride, stride), "VALID", dimension_numbers=NHWC
    )
    actual = layers.pointwise_conv(images, kernel, (stride, stride), "VALID")
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fast", ["winograd", "taps"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_prepared_convolution_is_the_same(fast, dilation):
    """What `prepare` makes of a kernel, and a layer that it leaves alone."""
    options = {"padding": ((dilation,) * 2,) * 2, "dilation": dilation}
    layer = conv_norm(fast=fast, folded=True, **options)
    images = draw(2, 9, 12, layer.conv.kernel.shape[2])
    expected = layer(images)
    shape = layer.conv.kernel.shape
    layers.prepare(layer)
    assert (
        layer.conv.kernel.shape
        == {
            "winograd": (36, *shape[2:]),
            "taps": (9 * shape[3], shape[2]),
        }[fast]
    )
    np.testing.assert_allclose(layer(images), expected, rtol=1e-4, atol=1e-5)
    strided = conv_norm(fast=fast, folded=True, stride=2, **options)
    layers.prepare(strided)
    assert strided.conv.kernel.shape == shape


def test_spatial_mean_is_the_mean_and_a_matrix_product():
    maps = draw(3, 7, 5, 11)
    expected = maps.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(layers.spatial_mean(maps), expected, atol=1e-6)
    text = str(jax.make_jaxpr(layers.spatial_mean)(maps))
    assert "dot_general" in text
    assert "reduce_sum" not in text


def conv_norm(**options):
    options = {"padding": ((1, 1), (1, 1)), "epsilon": 1e-3, **options}
    return layers.ConvNorm(4, 6, 3, rngs=nnx.Rngs(0), **options)


def test_conv_norm_in_inference_uses_the_running_statistics():
    layer = conv_norm()
    images = draw(2, 8, 8, 4)
    mean, var, scale, bias = (np.abs(draw(6)) + i for i in range(4))
    layer.norm.mean[...], layer.norm.var[...] = mean, var
    layer.norm.scale[...], layer.norm.bias[...] = scale, bias
    plain = np.asarray(layer.conv(images), np.float64)
    expected = (plain - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(layer(images), expected, rtol=1e-5, atol=1e-5)


def test_conv_norm_in_training_normalizes_the_batch_and_moves_the_statistics():
    layer = conv_norm()
    images = draw(2, 8, 8, 4)
    plain = np.asarray(layer.conv(images), np.float64)
    layer.train()
    out = np.asarray(layer(images), np.float64)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    expected = 0.1 * plain.mean((0, 1, 2))
    np.testing.assert_allclose(layer.norm.mean[...], expected, atol=1e-6)
    layer.eval()
    before = np.asarray(layer.norm.mean[...])
    layer(images)
    np.testing.assert_array_equal(layer.norm.mean[...], before)


def test_folding_by_hand():
    kernel = np.ones((1, 1, 1, 2), np.float32)
    parameters = {
        "a.conv.kernel": kernel,
        "a.norm.scale": np.array([2, 3], np.float32),
        "a.norm.bias": np.array([1, -1], np.float32),
        "a.norm.mean": np.array([10, 20], np.float32),
        "a.norm.var": np.array([3, 8], np.float32),
        "fc.bias": np.array([7], np.float32),
    }
    folded = layers.fold_batch_norm(parameters, epsilon=1.0)
    assert sorted(folded) == ["a.conv.bias", "a.conv.kernel", "fc.bias"]
    np.testing.assert_allclose(folded["a.conv.kernel"].ravel(), [1, 1])
    np.testing.assert_allclose(folded["a.conv.bias"], [1 - 10, -1 - 20])
    assert all(array.dtype == np.float32 for array in folded.values())
    assert "a.norm.scale" in parameters


def test_initial_distributions_are_the_recipes():
    layer = layers.ConvNorm(64, 128, 3, padding="SAME", rngs=nnx.Rngs(0))
    expected = np.sqrt(2 / (3 * 3 * 128))
    assert np.std(layer.conv.kernel[...]) == pytest.approx(expected, rel=0.02)
    head = layers.classifier_head(400, 300, rngs=nnx.Rngs(0))
    for values in (head.kernel[...], head.bias[...]):
        assert 0.04 < jnp.abs(values).max() <= 0.05
