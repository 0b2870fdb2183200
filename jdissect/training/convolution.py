"""The form that 3x3 convolutions have while they are trained."""

from flax import nnx
from jaxtyping import Array

from jdissect.models.layers import ConvNorm, prepared_conv
from jdissect.ops import winograd_gradient


def trained_conv(images, kernel, *options, rhs_dilation, **more) -> Array:
    """A 3x3 convolution of stride 1 that keeps the size, and its gradients.

    By Winograd where that is faster on a CPU. Takes the arguments of
    `lax.conv_general_dilated` that `nnx.Conv` gives; kernel is [3, 3, in, out].
    """
    dilation = rhs_dilation[0]
    if winograd_gradient.worth_it(images.shape, kernel.shape, dilation):
        return winograd_gradient.convolve(images, kernel, dilation)
    return prepared_conv(images, kernel, *options, rhs_dilation=rhs_dilation, **more)


def for_training(model: nnx.Module) -> None:
    """Gives convolutions of `ConvNorm(fast='winograd')` theirs, for float32.

    Worth it on CPUs. Parameters and their names stay as they are.
    """
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, ConvNorm) and layer.fast == "winograd":
            layer.conv.conv_general_dilated = trained_conv
