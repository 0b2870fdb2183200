"""ResNet-50 trained without mixing or cutting.

The network that comes with the package, on the pictures it was trained on (`scenes`):

    python -m jdissect.main --config=configs/baseline.py

At the paper's scale, with your own weights:

    python -m jdissect.main --config=configs/baseline.py:imagenet \
        --config.model.weights=weights/baseline \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

To train it and to measure its error:

    python -m jdissect.train --config=configs/baseline.py:imagenet \
        --workdir=runs/baseline
    python -m jdissect.evaluate --config=configs/baseline.py:imagenet \
        --config.model.weights=runs/baseline/model

Published weights: https://www.dropbox.com/sh/phwbbrtadrclpnx (CutMix-PyTorch),
model_best.pth.tar; `converters.resnet` converts them to weights/baseline,
`converters.upernet` and `converters.color` convert the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("baseline", variant)
    config.augment.recipe = "none"
    return config
