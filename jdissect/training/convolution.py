"""Computes 3x3 convolutions and their gradients in training."""

from flax import nnx
from jaxtyping import Array

from jdissect.models.layers import ConvNorm, prepared_conv
from jdissect.ops import winograd_gradient


def trained_conv(images, kernel, *options, rhs_dilation, **more) -> Array:
    """Computes a size-preserving 3x3 convolution of stride 1, with gradients.

    Uses Winograd where that is faster on a CPU. Takes the arguments that `nnx.Conv`
    passes to `lax.conv_general_dilated`; kernel is [3, 3, in, out].
    """
    dilation = rhs_dilation[0]
    if winograd_gradient.worth_it(images.shape, kernel.shape, dilation):
        return winograd_gradient.convolve(images, kernel, dilation)
    return prepared_conv(images, kernel, *options, rhs_dilation=rhs_dilation, **more)


def for_training(model: nnx.Module) -> None:
    """Makes convolutions of `ConvNorm(fast='winograd')` use `trained_conv`, in float32.

    This pays off on CPUs. Parameters and their names do not change.
    """
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, ConvNorm) and layer.fast == "winograd":
            layer.conv.conv_general_dilated = trained_conv
