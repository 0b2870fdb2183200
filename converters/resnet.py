"""Converts a PyTorch ResNet-18/34/50/101/152 classifier.

    python -m converters.resnet --checkpoint=model_best.pth.tar --output=weights/mixup

Reads the state dicts of torchvision and timm, and the training checkpoints of
CutMix-PyTorch and SaliencyMix. Depth, width and number of classes are those of the
tensors. --verify compares the result with PyTorch before it is written.
"""

import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from converters import command
from converters.convert import Target, conv_norm, linear
from jdissect.errors import UserError
from jdissect.models.preprocess import IMAGENET
from jdissect.models.resnet import DEPTHS


def mapping(depth: int) -> dict[str, Target]:
    """Where each tensor of a ResNet goes in `jdissect.models.resnet`."""
    targets = conv_norm("conv1", "bn1", "stem")
    bottleneck, _ = DEPTHS[depth]
    return targets | stages(depth, bottleneck) | linear("fc", "fc")


def stages(depth: int, shortcut: bool, prefix: str = "") -> dict[str, Target]:
    """Where the tensors of layer1 to layer4 go.

    Args:
      depth: a key of DEPTHS.
      shortcut: whether layer1 changes the number of channels; the others always do.
      prefix: of the parameters' names.
    """
    bottleneck, blocks = DEPTHS[depth]
    targets = {}
    for stage, count in enumerate(blocks, 1):
        for number in range(count):
            block = f"layer{stage}.{number}"
            for part in (1, 2, 3) if bottleneck else (1, 2):
                targets |= conv_norm(
                    f"{block}.conv{part}",
                    f"{block}.bn{part}",
                    f"{prefix}{block}.conv{part}",
                )
            if number == 0 and (stage > 1 or shortcut):
                targets |= conv_norm(
                    f"{block}.downsample.0",
                    f"{block}.downsample.1",
                    f"{prefix}{block}.shortcut",
                )
    return targets


def plan(tensors: Mapping[str, np.ndarray], where: str) -> command.Plan:
    """Finds depth, width and classes in the tensors' names and shapes.

    Args:
      tensors: name -> array in PyTorch's layout.
      where: the file, for messages.

    Raises:
      UserError: this is no ResNet of the kind that `jdissect.models.resnet` has.
    """
    if 0 in count_blocks(tensors):
        raise UserError(
            f"{where} is not a ResNet: it has no blocks named layer1 to layer4.\n"
            "For an EfficientNet-Lite use converters.efficientnet_lite."
        )
    if _is_deep_stem(tensors):
        raise UserError(
            f"{where} is a ResNet with a deep stem, as segmenters' encoders are; "
            "this converter reads those with one 7x7 convolution.\n"
            "For a segmenter's folder use converters.upernet or converters.color."
        )
    depth = find_depth(tensors, where)
    width = find_width(tensors, where)
    classes = first_size(tensors, ("fc.weight", "fc.bias"), where)
    architecture = {"name": f"resnet{depth}", "width": width, "classes": classes}

    def twin():
        from converters.twins.resnet import ResNet

        return ResNet(depth, width=width, classes=classes)

    return command.Plan(architecture, mapping(depth), twin)


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
        if name in tensors and tensors[name].ndim and tensors[name].shape[0]:
            return tensors[name].shape[0]
    raise UserError(f"{where} lacks tensors: {', '.join(names)}")


def find_width(tensors: Mapping[str, np.ndarray], where: str) -> int:
    """The units of the stem's first convolution.

    Raises:
      UserError: this is a ResNeXt or a wide ResNet, which share names and depths with
        ResNets.
    """
    width = first_size(tensors, ("conv1.weight", "bn1.weight", "bn1.bias"), where)
    inner = tensors.get("layer1.0.conv2.weight")
    if inner is None or inner.ndim != 4:
        return width
    out_features, in_features = inner.shape[:2]
    if out_features == in_features == width:
        return width
    kind = "grouped" if in_features < out_features else "wider"
    raise UserError(
        f"{where} is not a plain ResNet: layer1.0.conv2.weight is "
        f"{list(inner.shape)}, a {kind} convolution than a stem of {width} units "
        "has (ResNeXt and wide ResNets are not supported)"
    )


def _is_deep_stem(tensors: Mapping[str, np.ndarray]) -> bool:
    """The names of segmenters' encoders, and those of timm's ResNet-D."""
    return any(name in tensors for name in ("conv3.weight", "conv1.0.weight"))


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return command.run(argv, __doc__, plan, IMAGENET, "configs/baseline.py:imagenet")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
