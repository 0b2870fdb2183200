"""The segmenters' encoder: a ResNet with a deep stem that returns all four stages.

It is the encoder of "semantic-segmentation-pytorch", on which UPerNet and the color
network build: three 3x3 convolutions replace the 7x7.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.models.layers import ConvNorm
from jdissect.models.resnet import chain, pad, stages


class Encoder(nnx.Module):
    """A ResNet without a head.

    Args:
      depth: a key of `resnet.DEPTHS`.
      width: planes of `layer1`; the stem has width, width and 2 * width units.
      dilated: whether layer3 and layer4 stay at stride 8.
      **options: folded, dtype, epsilon, rngs for every ConvNorm; fast for those of the
        stages.

    Attributes:
      features: channels of the four stages.
    """

    def __init__(self, depth: int, width: int, dilated: bool = False, **options):
        shared = {"padding": pad(3), **options, "fast": "winograd"}
        self.stem = nnx.List(
            [
                ConvNorm(3, width, 3, stride=2, **shared),
                ConvNorm(width, width, 3, **shared),
                ConvNorm(width, 2 * width, 3, **shared),
            ]
        )
        made, last = stages(depth, 2 * width, width, dilated=dilated, **options)
        for index, stage in enumerate(made, 1):
            setattr(self, f"layer{index}", stage)
        self.features = tuple(last // 2**index for index in (3, 2, 1, 0))
        self.dtype = options["dtype"]

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> list[Float[Array, "batch height2 width2 unit"]]:
        """Returns layer1 to layer4: strides 4, 8, 16, 32 (dilated: 4, 8, 8, 8)."""
        maps = images.astype(jnp.dtype(self.dtype))
        for conv in self.stem:
            maps = nnx.relu(conv(maps))
        maps = nnx.max_pool(maps, (3, 3), strides=(2, 2), padding=pad(3))
        found = []
        for index in (1, 2, 3, 4):
            maps = chain(getattr(self, f"layer{index}"), maps)
            found.append(maps)
        return found
