"""UPerNet: predicts an image's objects, parts, materials and scene with one network.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018:
a ResNet, pyramid pooling of its last map, a top-down feature pyramid, and one head
per kind of label.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.base.errors import UserError
from jdissect.models import layers, pyramid
from jdissect.models.encoder import Encoder
from jdissect.models.layers import ConvNorm, classifier_head, spatial_mean
from jdissect.models.resnet import pad
from jdissect.ops.resample import pool, precise_roi, resize

SCALES = (1, 2, 3, 6)  # bins per side of the pyramid pooling
OUTPUTS = ("object", "part", "material", "scene")
STRIDE = 32  # stride of the encoder
SIDE = 256  # side of the published network's square input images


class Head(nnx.Module):
    """3x3 convolution, batch normalization, ReLU, and a linear layer with bias."""

    def __init__(self, in_features: int, features: int, classes: int, **options):
        self.conv = ConvNorm(in_features, features, 3, padding=pad(3), **options)
        self.score = classifier_head(features, classes, rngs=options["rngs"])

    def __call__(
        self, maps: Float[Array, "batch height width channel"], shape: tuple[int, int]
    ) -> Float[Array, "batch height2 width2 class"]:
        """Returns scores at another size, float32.

        Resizing and the linear layer commute; resizing first is cheaper.
        """
        return self.score(resize(nnx.relu(self.conv(maps)), shape))

    def whole(
        self, maps: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch class"]:
        """Returns scores of the spatial mean, float32."""
        return self.score(spatial_mean(nnx.relu(self.conv(maps))))


class UPerNet(nnx.Module):
    """UPerNet with its four heads.

    Args:
      objects, parts, materials, scenes: number of classes of each head; the parts are
        the channels of all owners' groups.
      depth, width: depth and width of the encoder.
      fpn_dim: channels of the pyramid; 512 in the published network.
      folded: whether batch normalization is folded into the convolutions.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      rngs: initializes the parameters.
    """

    epsilon = 1e-5

    def __init__(
        self,
        *,
        objects: int,
        parts: int,
        materials: int,
        scenes: int,
        depth: int = 50,
        width: int = 64,
        fpn_dim: int = 512,
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
        self.encoder = Encoder(depth, width, **options)
        self.fpn_dim = fpn_dim
        *lower, last = self.encoder.features

        def conv1(channels):
            return ConvNorm(channels, fpn_dim, 1, padding=pad(1), **options)

        def conv3(channels, fast=""):
            return ConvNorm(channels, fpn_dim, 3, padding=pad(3), fast=fast, **options)

        self.ppm = nnx.List([conv1(last) for _ in SCALES])
        self.ppm_last = conv3(last + len(SCALES) * fpn_dim, "taps")
        self.fpn_in = nnx.List([conv1(channels) for channels in lower])
        # At strides 16 and 32, Winograd's fourfold weights take longer to read than
        # the saved products take to compute.
        forms = ("winograd", "winograd", "taps")
        self.fpn_out = nnx.List([conv3(fpn_dim, fast) for fast in forms])
        self.fusion = conv3(fpn_dim * (len(lower) + 1))

        def head(classes, **more):
            return Head(fpn_dim, fpn_dim, classes, **options, **more)

        self.object_head = head(objects, fast="winograd")
        self.part_head = head(parts, fast="winograd")
        self.material_head = head(materials, fast="winograd")
        self.scene_head = head(scenes)

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        outputs: Sequence[str] = ("object", "part", "material"),
        size: tuple[int, int] = (56, 56),
        plain: bool = False,
    ) -> dict[str, Float[Array, "batch *size class"]]:
        """Returns scores before softmax, float32.

        Args:
          images: BGR in 0..255 minus the means.
          outputs: a selection of OUTPUTS; others are not computed.
          size: height and width of the score maps.
          plain: whether to compute the fusion by definition, for tests.

        Returns:
          one score map per output; for 'scene', image scores [batch, class].

        Raises:
          UserError: an output is unknown, or the images are smaller than STRIDE.
        """
        check_images(images)
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown:
            raise UserError(f"UPerNet has no output '{unknown[0]}'; it has {OUTPUTS}")
        stages = self.encoder(images)
        top = self._pool(stages[-1])
        found = {}
        if "scene" in outputs:
            found["scene"] = self.scene_head.whole(top)
        if set(outputs) <= {"scene"}:
            return found
        levels = [top]  # strides 32, 16, 8, 4
        maps = top
        for lateral, smooth, stage in zip(
            reversed(self.fpn_in), reversed(self.fpn_out), stages[-2::-1], strict=True
        ):
            lateral = nnx.relu(lateral(stage))
            maps = lateral + resize(maps, lateral.shape[1:3])
            levels.append(nnx.relu(smooth(maps)))
        if "material" in outputs:
            found["material"] = self.material_head(levels[-1], size)
        if {"object", "part"} & set(outputs):
            fused = nnx.relu(pyramid.pyramid_conv(self.fusion, levels[::-1], plain))
            for name in ("object", "part"):
                if name in outputs:
                    found[name] = getattr(self, f"{name}_head")(fused, size)
        return {name: found[name] for name in outputs}

    def prepare(self) -> None:
        """Speeds up inference on CPUs; see `layers.prepare`."""
        layers.prepare(self)
        pyramid.prepare(self.fusion, [self.fpn_dim] * (len(self.fpn_in) + 1))

    def _pool(self, maps):
        """Pools the pyramid. Each scale is resized before its ReLU, unlike in `ppm`."""
        pooled = [
            nnx.relu(resize(conv(pool(maps, bins, precise_roi)), maps.shape[1:3]))
            for conv, bins in zip(self.ppm, SCALES, strict=True)
        ]
        return nnx.relu(self.ppm_last(jnp.concatenate([maps, *pooled], axis=-1)))


def check_images(images) -> None:
    """Raises UserError for images that leave no pixel in the last stage."""
    height, width = images.shape[1:3]
    if min(height, width) < STRIDE:
        raise UserError(
            f"images of {height}x{width} pixels are too small for a segmenter; "
            f"the minimum is {STRIDE}x{STRIDE}"
        )
