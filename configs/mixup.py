"""ResNet-50 trained with Mixup.

The network that comes with the package, on the pictures it was trained on (`scenes`):

    python -m jdissect.main --config=configs/mixup.py

At the paper's scale, with your own weights:

    python -m jdissect.main --config=configs/mixup.py:imagenet \
        --config.model.weights=weights/mixup \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

To train it and to measure its error:

    python -m jdissect.train --config=configs/mixup.py:imagenet \
        --workdir=runs/mixup
    python -m jdissect.evaluate --config=configs/mixup.py:imagenet \
        --config.model.weights=runs/mixup/model

Published weights: https://www.dropbox.com/sh/g64c8bda61n12if (CutMix-PyTorch),
model_best.pth.tar; `converters.resnet` converts them to weights/mixup,
`converters.upernet` and `converters.color` convert the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("mixup", variant)
    config.augment.recipe = "mixup"
    return config
