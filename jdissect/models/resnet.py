"""ResNet-18/34/50/101/152, "v1.5": the stride is in the 3x3 convolution.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with torchvision's
change, which CutMix-PyTorch and SaliencyMix also train. ResNeXt (Xie et al., CVPR 2017)
and wide ResNets (Zagoruyko & Komodakis, BMVC 2016) follow torchvision: bottlenecks with
other 3x3 convolutions.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.base.errors import UserError
from jdissect.models.endpoints import run_stages
from jdissect.models.layers import (
    ConvNorm,
    classifier_head,
    prepare,
    spatial_mean,
)

# depth -> (whether blocks are bottlenecks, blocks per stage)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


def pad(kernel_size: int, dilation: int = 1) -> tuple[tuple[int, int], ...]:
    """Returns PyTorch's symmetric padding, which differs from 'SAME' at stride 2."""
    return ((kernel_size // 2 * dilation,) * 2,) * 2


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a shortcut; the first one has the stride."""

    expansion = 1

    def __init__(
        self,
        in_features: int,
        planes: int,
        stride: int,
        dilations: tuple[int, int] = (1, 1),
        **options,
    ):
        first, second = dilations
        self.conv1 = ConvNorm(
            in_features,
            planes,
            3,
            stride=stride,
            padding=pad(3, first),
            dilation=first,
            **options,
        )
        self.conv2 = ConvNorm(
            planes, planes, 3, padding=pad(3, second), dilation=second, **options
        )
        self.shortcut = _shortcut(in_features, planes, stride, options)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 u"]:
        y = nnx.relu(self.conv1(x))
        y = self.conv2(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 to four times `planes`, with a shortcut.

    The 3x3 convolution has `inner` units (0: `planes`) in `groups` groups.
    """

    expansion = 4

    def __init__(
        self,
        in_features: int,
        planes: int,
        stride: int,
        dilations: tuple[int, int] = (1, 1),
        inner: int = 0,
        groups: int = 1,
        **options,
    ):
        out, dilation = planes * self.expansion, dilations[0]
        inner = inner or planes
        self.conv1 = ConvNorm(in_features, inner, 1, padding=pad(1), **options)
        self.conv2 = ConvNorm(
            inner,
            inner,
            3,
            stride=stride,
            padding=pad(3, dilation),
            dilation=dilation,
            groups=groups,
            **options,
        )
        self.conv3 = ConvNorm(inner, out, 1, padding=pad(1), **options)
        self.shortcut = _shortcut(in_features, out, stride, options)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 u"]:
        y = nnx.relu(self.conv1(x))
        y = nnx.relu(self.conv2(y))
        y = self.conv3(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(in_features, out_features, stride, options) -> ConvNorm | None:
    """Returns the shortcut's convolution, or None for the identity."""
    if stride == 1 and in_features == out_features:
        return None
    return ConvNorm(
        in_features, out_features, 1, stride=stride, padding=pad(1), **options
    )


def stages(
    depth: int,
    in_features: int,
    width: int,
    *,
    dilated: bool = False,
    last_stride: int = 2,
    groups: int = 1,
    width_per_group: int = 0,
    **options,
) -> tuple[list[nnx.List], int]:
    """Builds the four stages of a ResNet.

    Args:
      depth: a key of DEPTHS.
      in_features: channels of the first stage's input.
      width: planes of the first stage.
      dilated: whether the last two stages keep the size (for the color network); their
        3x3 convolutions have dilation 2 and 4, half of that in place of the stride.
      last_stride: stride of the fourth stage.
      groups, width_per_group: groups of the bottlenecks' 3x3 convolutions, see
        `ResNet`.

    Returns:
      the blocks of each stage, for `chain`, and the number of output channels.

    Raises:
      UserError: groups without bottlenecks.
    """
    bottleneck, counts = DEPTHS[depth]
    if not bottleneck and (groups > 1 or width_per_group):
        raise UserError(
            f"a ResNet-{depth} has no bottlenecks, and so no groups or width_per_group"
        )
    block = Bottleneck if bottleneck else BasicBlock
    strides = (1, 2, 2, last_stride)
    made = []
    for index, count in enumerate(counts):
        planes = width * 2**index
        dilation = 2 ** (index - 1) if dilated and index > 1 else 1
        stage = []
        for number in range(count):
            strided = index > 0 and number == 0
            stride = strides[index] if strided and dilation == 1 else 1
            dilations = (max(1, dilation // 2) if strided else dilation, dilation)
            if bottleneck:
                options["groups"] = groups
                options["inner"] = groups * width_per_group * 2**index
            stage.append(block(in_features, planes, stride, dilations, **options))
            in_features = planes * block.expansion
        made.append(nnx.List(stage))
    return made, in_features


def chain(blocks, x):
    """Applies one block after the other."""
    for block in blocks:
        x = block(x)
    return x


def stem_steps(
    network: Any,
    convolution: str,
    activated: str,
    activation: Callable[[Array], Array],
    masks: Mapping[str, Any] | None,
) -> tuple[list[tuple[str, Callable]], dict[str, Callable]]:
    """Returns a stem's stages, and what is computed beside them, for `run_stages`.

    A folded network computes the convolution before batch normalization only if that
    is named, by the copy of the stem that is not folded; nothing else changes.

    Args:
      network: has a ConvNorm `stem`, and if folded one named as `convolution`.
      convolution: name of the convolution's endpoint.
      activated: name of the endpoint after batch normalization and `activation`.
      masks: masks of the network's endpoints.
    """
    copy = getattr(network, convolution, None)
    if copy is not None and convolution not in (masks or {}):
        whole = [(activated, lambda images: activation(network.stem(images)))]
        return whole, {convolution: copy.conv}
    stem = network.stem if copy is None else copy
    rest = (activated, lambda maps: activation(stem.normalize(maps)))
    return [(convolution, stem.conv), rest], {}


class ResNet(nnx.Module):
    """A residual network that returns its endpoints.

    `stem` is taken after the stem's max pool (stride 4, `width` units); `layer1` to
    `layer4` after the last ReLU of each stage (strides 4, 8, 16, 32; with bottlenecks
    4, 8, 16, 32 times `width` units, else 1, 2, 4, 8 times). A stem of stride 1, or
    without the max pool, halves all strides.

    Other endpoints are computed only when named, with the names and meanings of
    torchvision's modules: `conv1` (stride 2, `width` units) is the stem's convolution
    before batch normalization and ReLU, `relu` is what follows both, and `layer1.0`,
    `layer1.1`, ... are taken after the last ReLU of each block of a stage. The last
    block of a stage is the stage.

    Args:
      depth: a key of DEPTHS.
      classes: number of logits; 0: no classifier, and logits are None.
      width: units of the stem; 64 in the published networks.
      in_channels: channels of the images, 3 or 1.
      stem_kernel, stem_stride, stem_pool: size and stride of the stem's convolution,
        and whether a max pool follows; 3, 1 and False in networks for CIFAR.
      groups, width_per_group: number of groups of the bottlenecks' 3x3 convolutions,
        and units per group in `layer1`, doubling with each stage; 32 and 4 in
        resnext50_32x4d, 1 and 128 in wide_resnet50_2. 0 units: `width` in total.
      last_stride: stride of `layer4`; 2 in the published networks. With 1, images of
        112 pixels end in maps of 7x7.
      folded: whether batch normalization is folded into the convolutions.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      rngs: initializes the parameters.

    Raises:
      UserError: a size or stride is below 1, or the stem's kernel has even size.
    """

    epsilon = 1e-5
    stage_names = ("stem", "layer1", "layer2", "layer3", "layer4")
    unfolded = {"conv1": "stem"}  # see `layers.fold_batch_norm`

    def __init__(
        self,
        depth: int,
        *,
        classes: int = 1000,
        width: int = 64,
        in_channels: int = 3,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        groups: int = 1,
        width_per_group: int = 0,
        last_stride: int = 2,
        folded: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        sizes = (width, in_channels, stem_kernel, stem_stride, groups, last_stride)
        if min(sizes) < 1 or stem_kernel % 2 == 0:
            raise UserError(f"sizes and strides of a ResNet cannot be {sizes}")
        options: dict[str, Any] = {
            "epsilon": self.epsilon,
            "folded": folded,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.dtype = dtype
        stem = functools.partial(
            ConvNorm,
            in_channels,
            width,
            stem_kernel,
            stride=stem_stride,
            padding=pad(stem_kernel),
        )
        self.stem = stem(**options)
        if folded:
            self.conv1 = stem(**{**options, "folded": False, "inference": True})
        self.stem_pool = stem_pool
        options |= {"last_stride": last_stride, "fast": "winograd"}
        options |= {"groups": groups, "width_per_group": width_per_group}
        made, features = stages(depth, width, width, **options)
        for index, stage in enumerate(made, 1):
            setattr(self, f"layer{index}", stage)
        self.fc = classifier_head(features, classes, rngs=rngs) if classes else None

    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        endpoints: str | Sequence[str] | None = None,
        masks: Mapping[str, Float[Array, " unit"]] | None = None,
    ) -> tuple[
        Float[Array, "batch classes"] | None,
        dict[str, Float[Array, "batch height2 width2 unit"]],
    ]:
        """Classifies normalized images.

        Args:
          images: images from `preprocess.normalize`.
          endpoints: None for `stage_names` and the logits, () for the logits only, or
            some of `endpoint_names`: then the logits are None and no deeper layer is
            computed.
          masks: {endpoint: factor per unit}, for example 0 to remove a unit; see
            `endpoints.run_stages`.

        Returns:
          float32 logits or None, and {endpoint: feature map}, at least 0 but for
          `conv1`.

        Raises:
          UserError: an endpoint is unknown.
        """
        first, beside = stem_steps(self, "conv1", "relu", nnx.relu, masks)
        steps = [*first, ("stem", self._pool)]
        for stage in self.stage_names[1:]:
            blocks = getattr(self, stage)
            steps += [(f"{stage}.{i}", block) for i, block in enumerate(blocks)]
            steps.append((stage, lambda maps: maps))
        images = images.astype(jnp.dtype(self.dtype))
        return run_stages(
            steps,
            images,
            self._head,
            endpoints,
            masks,
            default=self.stage_names,
            beside=beside,
        )

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """All endpoints, in order of depth."""
        names = ["conv1", "relu", "stem"]
        for stage in self.stage_names[1:]:
            count = len(getattr(self, stage))
            names += [*(f"{stage}.{i}" for i in range(count)), stage]
        return tuple(names)

    def prepare(self) -> None:
        """Speeds up inference on CPUs; see `layers.prepare`."""
        prepare(self)

    def _pool(self, maps):
        if not self.stem_pool:
            return maps
        return nnx.max_pool(maps, (3, 3), strides=(2, 2), padding=pad(3))

    def _head(self, maps):
        return None if self.fc is None else self.fc(spatial_mean(maps))
