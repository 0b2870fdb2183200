"""UPerNet: predicts an image's objects, parts, materials and scene with one network.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018:
a ResNet, pyramid pooling of its last map, a top-down feature pyramid, and one head
per kind of label.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.base.errors import UserError
from jdissect.models import layers, pyramid
from jdissect.models.encoder import Encoder
from jdissect.models.layers import ConvNorm, classifier_head, spatial_mean
from jdissect.models.resnet import pad
from jdissect.ops.resample import adaptive_average, pool, precise_roi, resize

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
    encoder: Encoder  # it and `fusion` are of `add_pyramid`
    fusion: ConvNorm

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
        add_pyramid(self, depth, width, fpn_dim, fpn_dim, options)

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
        top = pooled(self, stages[-1], precise_roi)
        found = {}
        if "scene" in outputs:
            found["scene"] = self.scene_head.whole(top)
        if set(outputs) <= {"scene"}:
            return found
        levels = top_down(self, top, stages)
        if "material" in outputs:
            found["material"] = self.material_head(levels[0], size)
        if {"object", "part"} & set(outputs):
            fused = nnx.relu(pyramid.pyramid_conv(self.fusion, levels, plain))
            for name in ("object", "part"):
                if name in outputs:
                    found[name] = getattr(self, f"{name}_head")(fused, size)
        return {name: found[name] for name in outputs}

    def prepare(self) -> None:
        """Speeds up inference on CPUs; see `layers.prepare`."""
        prepare_pyramid(self)


class ObjectUPerNet(nnx.Module):
    """UPerNet that predicts objects only.

    It is that of CSAILVision/semantic-segmentation-pytorch (mit_semseg/models). Unlike
    `UPerNet` it pools averages, and the scores follow the fusion at once.

    Args:
      objects: number of classes.
      depth, width: depth and width of the encoder.
      fpn_dim: channels of the pyramid; 512 in the published networks.
      ppm_dim: channels of each scale of the pyramid pooling; 512 in all of them.
      folded, dtype, rngs: as for `UPerNet`.
    """

    epsilon = 1e-5
    encoder: Encoder  # it and `fusion` are of `add_pyramid`
    fusion: ConvNorm

    def __init__(
        self,
        *,
        objects: int,
        depth: int = 50,
        width: int = 64,
        fpn_dim: int = 512,
        ppm_dim: int = 512,
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
        add_pyramid(self, depth, width, fpn_dim, ppm_dim, options)
        self.score = classifier_head(fpn_dim, objects, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        size: tuple[int, int] = (56, 56),
        plain: bool = False,
    ) -> dict[str, Float[Array, "batch *size class"]]:
        """Returns scores before softmax, float32, as {'object': scores}.

        Args:
          images: images normalized as the model's labels say.
          size: height and width of the score maps.
          plain: whether to compute the fusion by definition, for tests.

        Raises:
          UserError: the images are smaller than STRIDE.
        """
        check_images(images)
        stages = self.encoder(images)
        levels = top_down(self, pooled(self, stages[-1], adaptive_average), stages)
        fused = nnx.relu(pyramid.pyramid_conv(self.fusion, levels, plain))
        return {"object": self.score(resize(fused, size))}  # they commute

    def prepare(self) -> None:
        """Speeds up inference on CPUs; see `layers.prepare`."""
        prepare_pyramid(self)


def add_pyramid(
    network: Any,
    depth: int,
    width: int,
    fpn_dim: int,
    ppm_dim: int,
    options: dict[str, Any],
) -> None:
    """Gives a network its encoder, pyramid pooling, feature pyramid and fusion.

    Args:
      network: the network; gets `encoder`, `ppm`, `ppm_last`, `fpn_in`, `fpn_out`,
        `fusion`.
      depth, width: depth and width of the encoder.
      fpn_dim: channels of the pyramid.
      ppm_dim: channels of each scale of the pyramid pooling.
      options: folded, dtype, epsilon, rngs for every ConvNorm.
    """
    network.encoder = Encoder(depth, width, **options)
    network.fpn_dim = fpn_dim
    *lower, last = network.encoder.features

    def conv1(channels, units):
        return ConvNorm(channels, units, 1, padding=pad(1), **options)

    def conv3(channels, fast=""):
        return ConvNorm(channels, fpn_dim, 3, padding=pad(3), fast=fast, **options)

    network.ppm = nnx.List([conv1(last, ppm_dim) for _ in SCALES])
    network.ppm_last = conv3(last + len(SCALES) * ppm_dim, "taps")
    network.fpn_in = nnx.List([conv1(channels, fpn_dim) for channels in lower])
    # At strides 16 and 32, Winograd's fourfold weights take longer to read than the
    # saved products take to compute.
    forms = ("winograd", "winograd", "taps")
    network.fpn_out = nnx.List([conv3(fpn_dim, fast) for fast in forms])
    network.fusion = conv3(fpn_dim * (len(lower) + 1))


def pooled(network: Any, maps: Array, matrix: Callable) -> Array:
    """Pools the pyramid. Each scale is resized before its ReLU, unlike in `ppm`.

    Args:
      network: see `add_pyramid`.
      maps: the encoder's last maps.
      matrix: see `ops.resample.pool`.
    """
    scales = [
        nnx.relu(resize(conv(pool(maps, bins, matrix)), maps.shape[1:3]))
        for conv, bins in zip(network.ppm, SCALES, strict=True)
    ]
    return nnx.relu(network.ppm_last(jnp.concatenate([maps, *scales], axis=-1)))


def top_down(network: Any, top: Array, stages: Sequence[Array]) -> list[Array]:
    """Returns the maps of the feature pyramid, of strides 4, 8, 16, 32.

    Args:
      network: see `add_pyramid`.
      top: maps from `pooled`.
      stages: the encoder's maps.
    """
    levels, maps = [top], top
    for lateral, smooth, stage in zip(
        reversed(network.fpn_in),
        reversed(network.fpn_out),
        stages[-2::-1],
        strict=True,
    ):
        lateral = nnx.relu(lateral(stage))
        maps = lateral + resize(maps, lateral.shape[1:3])
        levels.append(nnx.relu(smooth(maps)))
    return levels[::-1]


def prepare_pyramid(network: Any) -> None:
    """Speeds up inference of a network of `add_pyramid`; see `layers.prepare`."""
    layers.prepare(network)
    pyramid.prepare(network.fusion, [network.fpn_dim] * (len(network.fpn_in) + 1))


def check_images(images) -> None:
    """Raises UserError for images that leave no pixel in the last stage."""
    height, width = images.shape[1:3]
    if min(height, width) < STRIDE:
        raise UserError(
            f"images of {height}x{width} pixels are too small for a segmenter; "
            f"the minimum is {STRIDE}x{STRIDE}"
        )
