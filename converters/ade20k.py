"""Converts segmenters of ADE20K's 150 objects.

    python -m converters.ade20k --checkpoint=FOLDER_OR_ADDRESS --output=weights/ade20k

Reads encoder_epoch_N.pth and decoder_epoch_N.pth of CSAILVision's
semantic-segmentation-pytorch from a folder on disk, or downloads them, for example from
http://sceneparsing.csail.mit.edu/model/pytorch/ade20k-resnet50-upernet/
The decoder is UPerNet (on a ResNet) or PPM, with or without deep supervision (on a
dilated ResNet). Sizes are taken from the tensors. --verify compares the result with
PyTorch before writing it. Give the folder to --config.segmenter.upernet.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from jdissect.converters.ade20k_names import NAMES
from jdissect.converters.convert import Target, conv_norm, pointwise_linear
from jdissect.converters.resnet_shapes import first_size

from jdissect.base.errors import UserError
from jdissect.converters import color, segmenter
from jdissect.models.preprocess import IMAGENET
from jdissect.models.segmenter_labels import read_objects
from jdissect.models.upernet import STRIDE

# Epochs of the published files, as their repository's config/*.yaml have them.
EPOCHS = {
    "ade20k-resnet50-upernet": 30,
    "ade20k-resnet101-upernet": 50,
    "ade20k-resnet18dilated-ppm_deepsup": 20,
    "ade20k-resnet50dilated-ppm_deepsup": 20,
    "ade20k-resnet101dilated-ppm_deepsup": 25,
}
_OTHERS = 30
# The original sums over shorter sides of 300 to 600; 300 becomes 320, a multiple of 32.
SIDES = ("320",)
_LARGEST_SIDE = 4096


def upernet_mapping() -> dict[str, Target]:
    """Maps each tensor of a UPerNet's decoder to `models.upernet.ObjectUPerNet`."""
    names = {"ppm_last_conv": "ppm_last", "conv_last.0": "fusion"}
    names |= {f"ppm_conv.{k}": f"ppm.{k}" for k in range(4)}
    names |= {f"fpn_in.{k}": f"fpn_in.{k}" for k in range(3)}
    names |= {f"fpn_out.{k}.0": f"fpn_out.{k}" for k in range(3)}
    targets: dict[str, Target] = {}
    for theirs, ours in names.items():
        targets |= conv_norm(f"{theirs}.0", f"{theirs}.1", ours)
    return targets | pointwise_linear("conv_last.1", "score")


def decoder(
    tensors: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, Any], dict[str, Target]]:
    """Returns a decoder's name and sizes, and where its tensors go.

    Raises:
      UserError: it is neither a UPerNet nor a PPM.
    """

    def size(*names):
        return first_size(tensors, names, where)

    if any(name.startswith("fpn_in.") for name in tensors):
        options: dict[str, Any] = {
            "name": "upernet_objects",
            "objects": size("conv_last.1.weight", "conv_last.1.bias"),
            "fpn_dim": size("conv_last.0.0.weight", "conv_last.0.1.weight"),
            "ppm_dim": size("ppm_conv.0.0.weight", "ppm_conv.0.1.weight"),
        }
        return options, upernet_mapping()
    if any(name.startswith("ppm.") for name in tensors):
        options, mapping = color.decoder(tensors, where)
        objects = {"objects": options.pop("classes")}
        return {"name": "ppm_objects", **options, **objects}, mapping
    raise UserError(
        f"{where} has no pyramid: only UPerNet's and PPM's decoders can be converted, "
        "not C1's"
    )


def twin(name: str, **options):
    """Builds the network in PyTorch."""
    from jdissect.converters.twins.objects import ObjectPPM, ObjectUPerNet

    return {"upernet_objects": ObjectUPerNet, "ppm_objects": ObjectPPM}[name](**options)


def labels(options: flags.FlagValues) -> dict[str, Any]:
    """Returns the content of the labels.json that these segmenters lack."""
    sides = [int(text) for text in options.sides if text.isdecimal()]
    if len(sides) != len(options.sides) or not sides:
        sides = [0]
    if not all(STRIDE <= side <= _LARGEST_SIDE for side in sides):
        raise UserError(
            f"--sides={','.join(options.sides)} must be one or more numbers from "
            f"{STRIDE} to {_LARGEST_SIDE}"
        )
    return {
        "object": ["-", *NAMES],
        "imageformat": {
            "byteorder": "RGB",
            "mean": list(IMAGENET.mean),
            "stdev": list(IMAGENET.std),
        },
        "segsizes": sides,
    }


def epoch(address: str) -> int:
    """Returns the epoch of the files that are published at an address."""
    return EPOCHS.get(address.rstrip("/").rpartition("/")[2], _OTHERS)


def _define(where: dict) -> None:
    text = "Sides of the square images whose probabilities are summed, such as 320,448."
    flags.DEFINE_list("sides", list(SIDES), text, **where)


ADE20K = segmenter.Segmenter(
    name="upernet_objects",
    key="upernet",
    converter="converters.ade20k",
    default_epoch=epoch,
    sign="conv_last.",
    decoder=decoder,
    twin=twin,
    read_labels=read_objects,
    verify={},
    labels=labels,
    define=_define,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return segmenter.run(argv, __doc__, ADE20K)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
