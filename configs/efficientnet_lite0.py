"""EfficientNet-Lite0 with ImageNet weights, against hand-drawn masks.

    python -m jdissect.main --config=configs/efficientnet_lite0.py \
        --config.model.weights=DIR --config.data.path=BRODEN_FOLDER

`python -m converters.efficientnet_lite` writes DIR.
"""

import ml_collections
from jdissect.configs.common import get_common


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        from jdissect.base.errors import UserError

        raise UserError(f"configs/efficientnet_lite0.py has no variant '{variant}'")
    config = get_common()
    config.model.name = "efficientnet_lite0"
    config.model.layers = ("head",)
    config.data.source = "broden"
    config.segmenter.name = "annotations"
    return config
