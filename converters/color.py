"""Converts the color segmenter: pyramid pooling on a dilated ResNet.

    python -m converters.color --checkpoint=FOLDER_OR_ADDRESS --output=weights/color

Reads encoder_epoch_N.pth, decoder_epoch_N.pth and labels.json from a folder on disk, or
downloads them. netdissect's are at
https://dissect.csail.mit.edu/models/segmodel/color-resnet18dilated-ppm_deepsup/
Sizes are taken from the tensors; the labels must match them. The auxiliary head, used
only in training, is left out. --verify compares the result with PyTorch before writing
it.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from jdissect.converters.convert import Target, conv_norm, pointwise_linear
from jdissect.converters.resnet_shapes import first_size

from jdissect.converters import segmenter
from jdissect.models.segmenter_labels import read_color


def mapping() -> dict[str, Target]:
    """Maps each tensor of the decoder to `jdissect.models.ppm`."""
    targets = conv_norm("conv_last.0", "conv_last.1", "last")
    for k in range(4):
        targets |= conv_norm(f"ppm.{k}.1", f"ppm.{k}.2", f"ppm.{k}")
    return targets | pointwise_linear("conv_last.4", "score")


def decoder(
    tensors: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, int], dict[str, Target]]:
    """Returns a decoder's sizes, and where its tensors go."""
    last = ("conv_last.0.weight", "conv_last.1.weight")
    score = ("conv_last.4.weight", "conv_last.4.bias")
    options = {
        "ppm_dim": first_size(tensors, last, where),
        "classes": first_size(tensors, score, where),
    }
    return options, mapping()


def twin(**options):
    """Builds the network in PyTorch."""
    from jdissect.converters.twins.ppm import PPM

    return PPM(**options)


COLOR = segmenter.Segmenter(
    name="ppm",
    key="color",
    converter="converters.color",
    default_epoch=lambda address: 20,
    sign="conv_last.",
    decoder=decoder,
    twin=twin,
    read_labels=read_color,
    verify={},
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return segmenter.run(argv, __doc__, COLOR)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
