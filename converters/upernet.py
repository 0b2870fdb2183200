"""Converts UPerNet, the segmenter of objects, parts, materials and scenes.

    python -m converters.upernet --checkpoint=FOLDER_OR_ADDRESS --output=weights/upernet

Reads encoder_epoch_N.pth, decoder_epoch_N.pth and labels.json from a folder on disk, or
downloads them. netdissect's are at
https://dissect.csail.mit.edu/models/segmodel/upp-resnet50-upernet/
Sizes are taken from the tensors; the labels must match them. --verify compares the
result with PyTorch before writing it.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from jdissect.converters.convert import Target, conv_norm, pointwise_linear
from jdissect.converters.resnet_shapes import first_size

from jdissect.base.errors import UserError
from jdissect.converters import segmenter
from jdissect.models.segmenter_labels import read_upernet

# head -> position of its last convolution, and the option that counts its outputs
HEADS = {
    "object": (1, "objects"),
    "part": (1, "parts"),
    "material": (1, "materials"),
    "scene": (2, "scenes"),
}


def mapping() -> dict[str, Target]:
    """Maps each tensor of the decoder to `jdissect.models.upernet`."""
    names = {"ppm_last_conv": "ppm_last", "conv_fusion": "fusion"}
    names |= {f"ppm_conv.{k}": f"ppm.{k}" for k in range(4)}
    names |= {f"fpn_in.{k}": f"fpn_in.{k}" for k in range(3)}
    names |= {f"fpn_out.{k}.0": f"fpn_out.{k}" for k in range(3)}
    names |= {f"{head}_head.0": f"{head}_head.conv" for head in HEADS}
    targets: dict[str, Target] = {}
    for theirs, ours in names.items():
        targets |= conv_norm(f"{theirs}.0", f"{theirs}.1", ours)
    for head, (place, _) in HEADS.items():
        targets |= pointwise_linear(f"{head}_head.{place}", f"{head}_head.score")
    return targets


def decoder(
    tensors: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, int], dict[str, Target]]:
    """Returns a decoder's sizes, and where its tensors go."""
    if "conv_last.0.0.weight" in tensors:
        raise UserError(
            f"{where} is the decoder of a UPerNet of objects only.\n"
            "Use converters.ade20k for it."
        )
    names = ("conv_fusion.0.weight", "conv_fusion.1.weight")
    options = {"fpn_dim": first_size(tensors, names, where)}
    for head, (place, option) in HEADS.items():
        both = [f"{head}_head.{place}.{part}" for part in ("weight", "bias")]
        options[option] = first_size(tensors, both, where)
    return options, mapping()


def twin(**options):
    """Builds the network in PyTorch."""
    from jdissect.converters.twins.upernet import UPerNet

    return UPerNet(**options)


UPERNET = segmenter.Segmenter(
    name="upernet",
    key="upernet",
    converter="converters.upernet",
    default_epoch=lambda address: 40,
    sign="fpn_in.",
    decoder=decoder,
    twin=twin,
    read_labels=read_upernet,
    verify={"scale": 64.0, "outputs": tuple(HEADS)},  # pixels of 0..255 without means
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return segmenter.run(argv, __doc__, UPERNET)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
