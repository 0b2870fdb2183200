"""Converts a PyTorch ResNet-18/34/50/101/152.

    python -m converters.resnet --checkpoint=model_best.pth.tar --output=weights/mixup

Reads the state dicts of torchvision and timm, and the training checkpoints of
CutMix-PyTorch, SaliencyMix, torchvision, timm, Lightning and others, ResNeXt and wide
ResNets among them. The network may be a part of another (`model.`, `encoder_q.`,
`backbone.`) and have no classifier. What the tensors say is read from them: depth,
width, groups, classes, channels. --verify compares the result with PyTorch before it
is written.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from jdissect.converters.convert import UNUSED

from jdissect.base.errors import UserError
from jdissect.base.printable import listed
from jdissect.converters import command, resnet_names, resnet_shapes
from jdissect.models.preprocess import GREY, IMAGENET

_KERNELS = (3, 7)


def plan(tensors: Mapping[str, np.ndarray], where: str, options) -> command.Plan:
    """Finds the architecture in the tensors' names and shapes.

    Args:
      tensors: name -> array in PyTorch's layout.
      where: the file, for messages.
      options: flags; stem_stride and stem_pool say what tensors do not.

    Raises:
      UserError: this is no ResNet of the kind that `jdissect.models.resnet` has.
    """
    tensors, notes = resnet_names.named_as_usual(tensors)
    if 0 in resnet_shapes.count_blocks(tensors):
        counts = enumerate(resnet_shapes.count_blocks(tensors), 1)
        there = [f"layer{number}" for number, count in counts if count]
        raise UserError(
            f"{where} is not a ResNet of four stages: it has no blocks named layer1 to "
            f"layer4{' but only ' + ', '.join(there) if there else ''}.\n"
            "For an EfficientNet-Lite use converters.efficientnet_lite."
        )
    resnet_shapes.check_kind(tensors, where)
    depth = resnet_shapes.find_depth(tensors, where)
    width = resnet_shapes.stem_width(tensors, where)
    architecture = {"name": f"resnet{depth}", "width": width}
    unused = UNUSED
    if any(name in tensors for name in ("fc.weight", "fc.bias")):
        classes = resnet_shapes.first_size(tensors, ("fc.weight", "fc.bias"), where)
    else:
        classes, unused = 0, rf"{UNUSED}|^fc\."
        head = [name for name in tensors if name.startswith("fc.")]
        notes.append(
            "there is no classifier, fc.weight: the network can be dissected, but not "
            "evaluated or ablated"
            + (f"; left out a head of several layers, {listed(head)}" if head else "")
        )
    architecture["classes"] = classes
    stem, more = _stem(tensors, where, options)
    architecture |= stem | resnet_shapes.find_groups(tensors, depth, width, where)
    twin_options = {k: v for k, v in architecture.items() if k != "name"}

    def twin():
        from jdissect.converters.twins.resnet import ResNet

        return ResNet(depth, **twin_options)

    return command.Plan(
        architecture,
        tensors,
        resnet_names.mapping(depth, bool(classes)),
        twin,
        preprocessing=GREY if stem.get("in_channels") == 1 else IMAGENET,
        notes=[*notes, *more],
        unused=unused,
        side=224 if stem.get("stem_pool", True) else 32,
    )


def _stem(tensors, where: str, options) -> tuple[dict[str, Any], list[str]]:
    """What is unusual in the stem, as options of the architecture; and what to say."""
    kernel = tensors.get("conv1.weight")
    if kernel is None or kernel.ndim != 4:
        return {}, []
    found: dict[str, Any] = {}
    notes = []
    _, channels, height, width = kernel.shape
    if channels not in (1, 3):
        raise UserError(
            f"{where} takes images of {channels} channels (conv1.weight is "
            f"{list(kernel.shape)}); those of three and of one can be dissected"
        )
    if height != width or height not in _KERNELS:
        raise UserError(
            f"{where} has a stem of {height}x{width} (conv1.weight is "
            f"{list(kernel.shape)}); 7x7 and 3x3 are supported"
        )
    if channels == 1:
        found["in_channels"] = 1
        notes.append(
            "conv1 takes one channel: images are turned to grey (0.299 red + 0.587 "
            "green + 0.114 blue), and normalized with mean 0.449 and std 0.226 unless "
            "--mean and --std say otherwise"
        )
    stride, pool = options.stem_stride, options.stem_pool
    if height == 3:
        found["stem_kernel"] = 3
        stride, pool = stride or 1, bool(pool)
        pooling = "a max pool" if pool else "no max pool"
        if options.stem_stride is None or options.stem_pool is None:
            notes.append(
                f"conv1 is 3x3: stride {stride} and {pooling} are assumed, as networks "
                "for CIFAR have 1 and none; tensors do not show it, --stem_stride and "
                "--[no]stem_pool say it"
            )
    if stride not in (None, 2):
        found["stem_stride"] = stride
    if pool is False:
        found["stem_pool"] = False
    return found, notes


def define(values: flags.FlagValues, where: dict) -> None:
    """Flags that say what a file does not."""
    flags.DEFINE_integer(
        "stem_stride",
        None,
        "Of the first convolution; default: 1 if it is 3x3, else 2.",
        lower_bound=1,
        upper_bound=2,
        **where,
    )
    flags.DEFINE_bool(
        "stem_pool",
        None,
        "Whether a max pool follows it; default: no if it is 3x3, else yes.",
        **where,
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return command.run(
        argv, __doc__, resnet_names.roots, plan, "configs/baseline.py:imagenet", define
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
