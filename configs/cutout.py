"""ResNet-50 trained with Cutout.

The network that comes with the package, on the pictures it was trained on (`scenes`):

    python -m jdissect.main --config=configs/cutout.py

At the paper's scale, with your own weights:

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
model_best.pth.tar; `converters.resnet` converts them to weights/cutout,
`converters.upernet` and `converters.color` convert the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("cutout", variant)
    config.augment.recipe = "cutout"
    return config
