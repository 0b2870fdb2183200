"""ResNet-50 trained with SaliencyMix.

The network that comes with the package, on the pictures it was trained on (`scenes`):

    python -m jdissect.main --config=configs/saliencymix.py

At the paper's scale, with your own weights:

    python -m jdissect.main --config=configs/saliencymix.py:imagenet \
        --config.model.weights=weights/saliencymix \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

To train it and to measure its error:

    python -m jdissect.train --config=configs/saliencymix.py:imagenet \
        --workdir=runs/saliencymix
    python -m jdissect.evaluate --config=configs/saliencymix.py:imagenet \
        --config.model.weights=runs/saliencymix/model

Published weights: the Google Drive folder in SaliencyMix's README,
model_best.pth.tar; `converters.resnet` converts them to weights/saliencymix,
`converters.upernet` and `converters.color` convert the segmenters (README).
"""

import ml_collections
from jdissect.configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; variants: '' or 'scenes'; 'imagenet', 'places'."""
    config = get_study("saliencymix", variant)
    config.augment.recipe = "saliencymix"
    return config
