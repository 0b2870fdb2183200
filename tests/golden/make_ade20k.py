"""Computes ade20k.npz anew, with the original program.

    git clone https://github.com/CSAILVision/semantic-segmentation-pytorch
    python -m tests.golden.make_ade20k --checkout=semantic-segmentation-pytorch

README.md has the commit.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from tests import rule_checkpoints

CHANNELS = (4, 8, 16, 32)  # of small encoders' four maps
FPN_DIM = 8
OBJECTS = 150
SEED = 130  # of the maps; those of the decoders follow
SIZE = (5, 4)  # of the probabilities
# Of an encoder that strides, and of a dilated one.
SIDES = {"upernet": ((12, 16), (6, 8), (3, 4), (2, 2)), "ppm": ((6, 8),) * 4}


def maps(kind):
    """The encoder's maps, [1, channel, height, width]."""
    shapes = {
        f"{kind}.{place}": (1, channels, *sides)
        for place, (channels, sides) in enumerate(
            zip(CHANNELS, SIDES[kind], strict=True)
        )
    }
    drawn = rule_checkpoints.draw(shapes, SEED)
    return [torch.from_numpy(10 * array) for array in drawn.values()]


def fill(decoder, place):
    """Draws a decoder's tensors by the rule, those that inference reads."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in decoder.state_dict().items()
        if not name.rpartition(".")[2].startswith("_") and "deepsup" not in name
    }
    drawn = rule_checkpoints.draw(shapes, SEED + 1 + place)
    state = {name: torch.from_numpy(array) for name, array in drawn.items()}
    missing, unexpected = decoder.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    return decoder.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.checkout.resolve()))
    from mit_semseg.models import models

    options = {"num_class": OBJECTS, "fc_dim": CHANNELS[-1], "use_softmax": True}
    decoders = {
        "upernet": models.UPerNet(fpn_inplanes=CHANNELS, fpn_dim=FPN_DIM, **options),
        "ppm": models.PPMDeepsup(**options),
    }
    found = {}
    for place, (kind, decoder) in enumerate(decoders.items()):
        with torch.inference_mode():
            scores = fill(decoder, place)(maps(kind), segSize=SIZE)
        found[kind] = scores[0].permute(1, 2, 0).numpy()
    np.savez_compressed(arguments.output / "ade20k.npz", **found)


if __name__ == "__main__":
    main()
