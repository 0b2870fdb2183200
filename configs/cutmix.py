"""ResNet-50 trained with CutMix.

The network that comes with the package, on the pictures it was trained on (`scenes`):

    python -m jdissect.main --config=configs/cutmix.py

At the paper's scale, with your own weights:

    python -m jdissect.main --config=configs/cutmix.py:imagenet \
        --config.model.weights=weights/cutmix \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

To train it and to measure its error:

    python -m jdissect.train --config=configs/cutmix.py:imagenet \
        --workdir=runs/cutmix
    python -m jdissect.evaluate --config=configs/cutmix.py:imagenet \
        --config.model.weights=runs/cutmix/model

Published weights: https://www.dropbox.com/sh/w8dvfgdc3eirivf (CutMix-PyTorch),
model_best.pth.tar; `converters.resnet` converts them to weights/cutmix,
`converters.upernet` and `converters.color` convert the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("cutmix", variant)
    config.augment.recipe = "cutmix"
    return config
