"""EfficientNet-Lite0: EfficientNet-B0 with ReLU6 and without squeeze-excite.

Tan & Le, "EfficientNet", ICML 2019; the Lite variants are Google's, for integer
hardware. Padding is TensorFlow's "SAME", or PyTorch's symmetric padding for the network
that timm trained itself.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdissect.base.errors import UserError
from jdissect.models.endpoints import run_stages
from jdissect.models.layers import ConvNorm, Padding, classifier_head, spatial_mean
from jdissect.models.resnet import pad, stem_steps

# padding -> its epsilon of batch normalization
PADDINGS = {"same": 1e-3, "symmetric": 1e-5}
STEM_UNITS = 32
HEAD_UNITS = 1280
# kernel size, stride of the first block, expansion, units, repeats
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# The same, one line per block: kernel size, stride, expansion, units.
BLOCKS = tuple(
    (kernel_size, stride if repeat == 0 else 1, expansion, units)
    for kernel_size, stride, expansion, units, repeats in STAGES
    for repeat in range(repeats)
)


class InvertedResidual(nnx.Module):
    """1x1 expansion (if any), depthwise convolution, linear 1x1 projection."""

    def __init__(
        self,
        in_features: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        units: int,
        padding: str,
        **options,
    ):
        hidden = in_features * expansion
        pointwise = {"padding": _pad(padding, 1), **options}
        self.expand = (
            ConvNorm(in_features, hidden, 1, **pointwise) if expansion > 1 else None
        )
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            kernel_size,
            stride=stride,
            padding=_pad(padding, kernel_size),
            depthwise=True,
            **options,
        )
        self.project = ConvNorm(hidden, units, 1, **pointwise)
        self.skip = stride == 1 and in_features == units

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 u"]:
        y = x if self.expand is None else nnx.relu6(self.expand(x))
        y = nnx.relu6(self.depthwise(y))
        y = self.project(y)
        return x + y if self.skip else y


class EfficientNetLite0(nnx.Module):
    """EfficientNet-Lite0 that returns its endpoints.

    `stem` and `head` are taken after their ReLU6 (strides 2 and 32, 32 and 1280 units);
    `block0` to `block15`, numbered over all stages, after the skip connection. A block
    ends without an activation function, so its output may be negative. `conv_stem`,
    which is computed only when named, is the stem's convolution before batch
    normalization and ReLU6.

    Args:
      classes: number of logits; 0: no classifier, and logits are None.
      padding: a key of PADDINGS.
      folded: whether batch normalization is folded into the convolutions.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      rngs: initializes the parameters.

    Raises:
      UserError: the padding is unknown.
    """

    stage_names = ("stem", *(f"block{i}" for i in range(len(BLOCKS))), "head")
    endpoint_names = ("conv_stem", *stage_names)
    unfolded = {"conv_stem": "stem"}  # see `layers.fold_batch_norm`

    def __init__(
        self,
        *,
        classes: int = 1000,
        padding: str = "same",
        folded: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if padding not in PADDINGS:
            raise UserError(f"padding is {padding!r}; known: {', '.join(PADDINGS)}")
        self.epsilon = PADDINGS[padding]
        options: dict[str, Any] = {
            "epsilon": self.epsilon,
            "folded": folded,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.dtype = dtype
        stem = functools.partial(
            ConvNorm, 3, STEM_UNITS, 3, stride=2, padding=_pad(padding, 3)
        )
        self.stem = stem(**options)
        if folded:
            self.conv_stem = stem(**{**options, "folded": False, "inference": True})
        blocks, features = [], STEM_UNITS
        for kernel_size, stride, expansion, units in BLOCKS:
            blocks.append(
                InvertedResidual(
                    features, kernel_size, stride, expansion, units, padding, **options
                )
            )
            features = units
        self.blocks = nnx.List(blocks)
        options["padding"] = _pad(padding, 1)
        self.head = ConvNorm(features, HEAD_UNITS, 1, **options)
        self.fc = classifier_head(HEAD_UNITS, classes, rngs=rngs) if classes else None

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
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
          float32 logits or None, and {endpoint: feature map}.

        Raises:
          UserError: an endpoint is unknown.
        """
        stages, beside = stem_steps(self, "conv_stem", "stem", nnx.relu6, masks)
        stages += [(f"block{i}", block) for i, block in enumerate(self.blocks)]
        stages += [("head", lambda x: nnx.relu6(self.head(x)))]
        images = images.astype(jnp.dtype(self.dtype))
        return run_stages(
            stages,
            images,
            self._head,
            endpoints,
            masks,
            default=self.stage_names,
            beside=beside,
        )

    def _head(self, maps):
        return None if self.fc is None else self.fc(spatial_mean(maps))


def _pad(padding: str, kernel_size: int) -> Padding:
    return "SAME" if padding == "same" else pad(kernel_size)
