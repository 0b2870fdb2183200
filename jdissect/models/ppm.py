"""The network of the color segmenter: pyramid pooling on a dilated ResNet.

Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, in the form of netdissect's
color model and of CSAILVision/semantic-segmentation-pytorch. Its auxiliary head is used
only in training and left out.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from jdissect.models import layers, pyramid
from jdissect.models.encoder import Encoder
from jdissect.models.layers import ConvNorm, classifier_head
from jdissect.models.resnet import pad
from jdissect.models.upernet import SCALES, check_images
from jdissect.ops.resample import pool, resize


class PPM(nnx.Module):
    """Pyramid pooling with one head.

    Args:
      classes: number of outputs of the head.
      depth, width: depth and width of the encoder, which is dilated to stride 8.
      ppm_dim: channels after the pooling; 512 in the published network.
      output: name of the scores.
      folded: whether batch normalization is folded into the convolutions.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      rngs: initializes the parameters.
    """

    epsilon = 1e-5

    def __init__(
        self,
        *,
        classes: int,
        depth: int = 18,
        width: int = 64,
        ppm_dim: int = 512,
        output: str = "color",
        folded: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {
            "epsilon": self.epsilon,
            "folded": folded,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.encoder = Encoder(depth, width, dilated=True, fast="winograd", **options)
        channels = self.encoder.features[-1]
        self.ppm = nnx.List(
            [ConvNorm(channels, ppm_dim, 1, padding=pad(1), **options) for _ in SCALES]
        )
        self.channels = [channels] + [ppm_dim] * len(SCALES)
        self.last = ConvNorm(sum(self.channels), ppm_dim, 3, padding=pad(3), **options)
        self.score = classifier_head(ppm_dim, classes, rngs=rngs)
        self.output = output

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        size: tuple[int, int] = (56, 56),
        plain: bool = False,
    ) -> dict[str, Float[Array, "batch *size class"]]:
        """Returns scores before softmax, float32, as {output: scores}.

        Args:
          images: images normalized as the model's labels.json says.
          size: height and width of the score maps.
          plain: whether to compute the last 3x3 convolution by definition, for tests.

        Raises:
          UserError: the images are smaller than 32 pixels.
        """
        check_images(images)
        maps = self.encoder(images)[-1]
        pooled = [
            nnx.relu(conv(pool(maps, bins)))
            for conv, bins in zip(self.ppm, SCALES, strict=True)
        ]
        maps = nnx.relu(pyramid.pyramid_conv(self.last, [maps, *pooled], plain))
        # The linear layer comes first: resizing enlarges 32x32 pixels to 56x56.
        return {self.output: resize(self.score(maps), size)}

    def prepare(self) -> None:
        """Speeds up inference on CPUs; see `layers.prepare`."""
        layers.prepare(self)
        pyramid.prepare(self.last, self.channels)
