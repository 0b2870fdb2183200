"""ResNet-50 trained with CutMix.

    python -m jdissect.main --config=configs/cutmix.py:imagenet \
        --config.model.weights=DIR

DIR is made by `python -m converters.resnet` from the published checkpoint.
"""

import ml_collections

from configs.common import get_study


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Variant: 'imagenet'."""
    return get_study("cutmix", variant)
