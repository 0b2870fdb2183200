"""ResNet-18/34/50/101/152, "v1.5": the stride sits on the 3x3 convolution.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the change
of torchvision that CutMix-PyTorch and SaliencyMix train (ORIGINALS 1.1).
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.models.endpoints import run_stages
from jdissect.models.layers import ConvNorm, classifier_head, spatial_mean

# depth -> (whether blocks are bottlenecks, blocks a stage)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


def _pad(kernel_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """PyTorch's symmetric padding, which is not 'SAME' at stride 2."""
    return ((kernel_size // 2,) * 2,) * 2


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut; the stride is the first one's."""

    expansion = 1

    def __init__(self, in_features: int, planes: int, stride: int, **options):
        self.conv1 = ConvNorm(
            in_features, planes, 3, stride=stride, padding=_pad(3), **options
        )
        self.conv2 = ConvNorm(planes, planes, 3, padding=_pad(3), **options)
        self.shortcut = _shortcut(in_features, planes, stride, options)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 u"]:
        y = nnx.relu(self.conv1(x))
        y = self.conv2(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 to four times `planes`, and a shortcut."""

    expansion = 4

    def __init__(self, in_features: int, planes: int, stride: int, **options):
        out = planes * self.expansion
        self.conv1 = ConvNorm(in_features, planes, 1, padding=_pad(1), **options)
        self.conv2 = ConvNorm(
            planes, planes, 3, stride=stride, padding=_pad(3), **options
        )
        self.conv3 = ConvNorm(planes, out, 1, padding=_pad(1), **options)
        self.shortcut = _shortcut(in_features, out, stride, options)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 u"]:
        y = nnx.relu(self.conv1(x))
        y = nnx.relu(self.conv2(y))
        y = self.conv3(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(in_features, out_features, stride, options) -> ConvNorm | None:
    """None where the identity fits."""
    if stride == 1 and in_features == out_features:
        return None
    return ConvNorm(
        in_features, out_features, 1, stride=stride, padding=_pad(1), **options
    )


def _chain(blocks, x):
    for block in blocks:
        x = block(x)
    return x


class ResNet(nnx.Module):
    """A residual network that returns its endpoints.

    `stem` is read after the stem's max pool (stride 4, `width` units); `layer1` to
    `layer4` after the last ReLU of each stage (strides 4, 8, 16, 32; with bottlenecks
    4, 8, 16, 32 times `width` units, else 1, 2, 4, 8 times).

    Args:
      depth: a key of DEPTHS.
      classes: number of logits.
      width: units of the stem; 64 in the published networks.
      folded: whether batch normalization is folded into the convolutions.
      dtype: of the computation, 'float32' or 'bfloat16'.
      rngs: draws the parameters.
    """

    epsilon = 1e-5
    endpoint_names = ("stem", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        depth: int,
        *,
        classes: int = 1000,
        width: int = 64,
        folded: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        bottleneck, blocks = DEPTHS[depth]
        block = Bottleneck if bottleneck else BasicBlock
        options = {
            "epsilon": self.epsilon,
            "folded": folded,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.dtype = dtype
        self.stem = ConvNorm(3, width, 7, stride=2, padding=_pad(7), **options)
        features = width
        for index, count in enumerate(blocks):
            planes = width * 2**index
            stage = []
            for number in range(count):
                stride = 2 if index > 0 and number == 0 else 1
                stage.append(block(features, planes, stride, **options))
                features = planes * block.expansion
            setattr(self, f"layer{index + 1}", nnx.List(stage))
        self.fc = classifier_head(features, classes, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        endpoints: str | Sequence[str] | None = None,
    ) -> tuple[
        Float[Array, "batch classes"] | None,
        dict[str, Float[Array, "batch height2 width2 unit"]],
    ]:
        """Classifies normalized images.

        Args:
          images: as `preprocess.normalize` returns them.
          endpoints: None for all and the logits, () for the logits only, or names:
            then the logits are None and nothing deeper than needed is computed.

        Returns:
          float32 logits or None; and {endpoint: feature map, at least 0}.

        Raises:
          UserError: an endpoint is unknown.
        """
        stages = [("stem", self._stem)]
        for name in self.endpoint_names[1:]:
            stages.append((name, functools.partial(_chain, getattr(self, name))))
        images = images.astype(jnp.dtype(self.dtype))
        return run_stages(stages, images, self._head, endpoints)

    def _stem(self, images):
        return nnx.max_pool(
            nnx.relu(self.stem(images)), (3, 3), strides=(2, 2), padding=_pad(3)
        )

    def _head(self, maps):
        return self.fc(spatial_mean(maps))
