"""A small UPerNet, trained on the exact masks of scenes in minutes on two cores.

    python -m jdissect.scenes --prepare build/scenes --split train
    python -m jdissect.scenes --prepare build/scenes --split validation
    XLA_FLAGS=--xla_force_host_platform_device_count=2 \
        python -m jdissect.train_segmenter --config=configs/segmenter.py \
        --config.data.path=build/scenes --workdir=runs/segmenter

RUN/model is then a checkpoint folder for --config.segmenter.upernet.
"""

import ml_collections
from jdissect.configs.common import get_common


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        from jdissect.base.errors import UserError

        raise UserError(f"configs/segmenter.py has no variant '{variant}'")
    config = get_common()
    config.model.name = "upernet"
    config.data.source = "scenes"
    config.data.batch_size = 50  # images per device and step of an evaluation
    config.train.depth = 18  # depth of the encoder
    config.train.width = 16  # planes of its first stage
    config.train.fpn_dim = 32  # channels of the pyramid
    config.train.image_size = 112  # side of the network's images in pixels
    config.train.window = 112  # side of the random crop in pixels of a picture
    config.train.grid = 28  # side of a crop's masks; the first stage has the same
    config.train.validation_images = 500
    config.train.epochs = 10
    config.train.batch_size = 32
    config.train.bn_group = 16
    config.train.learning_rate = 0.1  # falls as (1 - step / steps) ** 0.9
    config.augment.jitter = 0.0  # colors identify materials in scenes
    config.augment.lighting = 0.0
    config.loss = ml_collections.ConfigDict()  # weights of the heads' cross entropies
    config.loss.object = 1.0
    config.loss.part = 0.5
    config.loss.material = 1.0
    config.loss.scene = 0.25
    return config
