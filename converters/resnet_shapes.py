"""Shapes of a ResNet's tensors: the architecture that they tell."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from jdissect.base.errors import UserError
from jdissect.base.printable import listed
from jdissect.models.resnet import DEPTHS


def count_blocks(tensors: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The number of blocks in layer1 to layer4."""
    found = [re.match(r"layer([1-4])\.(\d+)\.", name) for name in tensors]
    numbers = {(int(match[1]), int(match[2])) for match in found if match}
    return tuple(
        max((number + 1 for stage, number in numbers if stage == wanted), default=0)
        for wanted in (1, 2, 3, 4)
    )


def find_depth(tensors: Mapping[str, np.ndarray], where: str) -> int:
    """The depth whose blocks these are.

    Raises:
      UserError: there is none.
    """
    blocks = count_blocks(tensors)
    bottleneck = any(re.fullmatch(r"layer\d\.\d+\.conv3\.weight", k) for k in tensors)
    for depth, kind in DEPTHS.items():
        if kind == (bottleneck, blocks):
            return depth
    raise UserError(
        f"{where} has {'-'.join(map(str, blocks))} "
        f"{'bottleneck' if bottleneck else 'basic'} blocks; of ResNets, "
        f"{', '.join(map(str, DEPTHS))} layers are known"
    )


def first_size(
    tensors: Mapping[str, np.ndarray], names: Sequence[str], where: str
) -> int:
    """The first axis of the first of `names` that is there.

    Raises:
      UserError: none is.
    """
    for name in names:
        if name in tensors and tensors[name].ndim and tensors[name].size:
            return tensors[name].shape[0]
    raise UserError(f"{where} lacks tensors: {', '.join(names)}")


def stem_width(tensors: Mapping[str, np.ndarray], where: str) -> int:
    """Returns the units of the stem's first convolution.

    Raises:
      UserError: there is no such tensor.
    """
    return first_size(tensors, ("conv1.weight", "bn1.weight", "bn1.bias"), where)


def plain_stem_width(tensors: Mapping[str, np.ndarray], where: str) -> int:
    """Returns the units of the stem's first convolution, of a plain ResNet.

    Raises:
      UserError: this is a ResNeXt or a wide ResNet, which share names and depths with
        ResNets.
    """
    width = stem_width(tensors, where)
    inner = tensors.get("layer1.0.conv2.weight")
    if inner is not None and inner.ndim == 4 and inner.shape[:2] != (width, width):
        _refuse_inner(inner, width, where)
    return width


def find_groups(
    tensors: Mapping[str, np.ndarray], depth: int, width: int, where: str
) -> dict[str, int]:
    """The options `groups` and `width_per_group` of a ResNeXt or a wide ResNet.

    Returns:
      The options; {} for a plain ResNet.

    Raises:
      UserError: the blocks are of no such network.
    """
    inner = tensors.get("layer1.0.conv2.weight")
    if inner is None or inner.ndim != 4 or not inner.size:
        return {}
    out_features, in_features = inner.shape[:2]
    if out_features == in_features == width:
        return {}
    bottleneck, _ = DEPTHS[depth]
    if not bottleneck or out_features % in_features:
        _refuse_inner(inner, width, where)
    groups = out_features // in_features
    return {"groups": groups, "width_per_group": in_features}


def check_kind(tensors: Mapping[str, np.ndarray], where: str) -> None:
    """Refuses relatives of a ResNet that compute something else.

    Raises:
      UserError: the stem is deep, shortcuts pool, or blocks have attention.
    """
    if "conv3.weight" in tensors:
        raise UserError(
            f"{where} is a ResNet with a deep stem, as segmenters' encoders are; "
            "this converter reads those with one convolution.\n"
            "For a segmenter's folder use converters.upernet or converters.color."
        )
    pooled = any(
        re.fullmatch(r"layer\d\.0\.downsample\.1\.weight", name) and array.ndim == 4
        for name, array in tensors.items()
    )
    if "conv1.0.weight" in tensors or pooled:
        what = "pooling in its shortcuts" if pooled else "a deep stem (conv1.0)"
        raise UserError(
            f"{where} is a ResNet with {what}: ResNet-C, -D and -T, such as timm's "
            "resnet26d and resnet50d, are not supported"
        )
    attention = [k for k in tensors if re.match(r"layer\d\.\d+\.(se|attn|eca)\.", k)]
    if attention:
        raise UserError(
            f"{where} has attention in its blocks ({listed(attention, 1)}): SE- and "
            "ECA-ResNets are not supported"
        )


def _refuse_inner(inner: np.ndarray, width: int, where: str) -> None:
    kind = "grouped" if inner.shape[1] < inner.shape[0] else "wider"
    raise UserError(
        f"{where} is not a plain ResNet: layer1.0.conv2.weight is {list(inner.shape)}, "
        f"which is {kind}; a stem of {width} units goes with {[width, width, 3, 3]}"
    )
