"""ResNet-50 trained with Cutout.

The network that comes with the package, on the pictures it was trained for (`scenes`):

    python -m jdissect.main --config=configs/cutout.py

At the paper's scale, with weights of your own:

    python -m jdissect.main --config=configs/cutout.py:imagenet \
        --config.model.weights=weights/cutout \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

To train it and to measure its error:

    python -m jdissect.train --config=configs/cutout.py:imagenet \
        --workdir=runs/cutout
    python -m jdissect.evaluate --config=configs/cutout.py:imagenet \
        --config.model.weights=runs/cutout/model

Published weights: https://www.dropbox.com/sh/ln8zk2z7zt2h1en (CutMix-PyTorch),
model_best.pth.tar; `converters.resnet` makes weights/cutout of it,
`converters.upernet` and `converters.color` make the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("cutout", variant)
    config.augment.recipe = "cutout"
    return config
