"""ResNet-50 trained with SaliencyMix.

    python -m jdissect.main --config=configs/saliencymix.py:imagenet \
        --config.model.weights=weights/saliencymix \
        --config.segmenter.upernet=weights/upernet \
        --config.segmenter.color=weights/color

Published weights: the Google Drive folder in SaliencyMix's README,
model_best.pth.tar; `converters.resnet` makes weights/saliencymix of it,
`converters.upernet` and `converters.color` make the segmenters (README).
"""

import ml_collections

from configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Variants: 'imagenet', 'places'."""
    return get_study("saliencymix", variant)
