"""Checks the training settings of a config, and derives values from them."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from jdissect import augment, models
from jdissect.base.errors import UserError
from jdissect.checkpoints import shipped
from jdissect.checkpoints.networks import SEGMENTERS
from jdissect.datasets import exif_rotation
from jdissect.evaluation.settings import check_evaluation, listed, must
from jdissect.models.preprocess import IMAGENET, LITE, Preprocessing
from jdissect.models.resnet import DEPTHS
from jdissect.models.upernet import STRIDE
from jdissect.scenes import SIDE
from jdissect.training.batch_norm import fits, fitting

# Keys that change when files are written, but not what is trained.
_OF_THE_RUN = ("train.log_every", "train.checkpoint_every", "train.metrics")


def check(config: ml_collections.ConfigDict) -> None:
    """Rejects invalid training settings.

    Raises:
      UserError: a value is invalid; names key and value.
    """
    train, mixing = config.train, config.augment
    known = [name for name in models.ARCHITECTURES if name not in SEGMENTERS]
    must(config.model.name in known, config, "model.name", f"one of {listed(known)}")
    recipes = augment.RECIPES
    must(
        mixing.recipe in recipes, config, "augment.recipe", f"one of {listed(recipes)}"
    )
    must(mixing.alpha > 0, config, "augment.alpha", "above 0")
    must(0 < mixing.crop_area <= 1, config, "augment.crop_area", "in (0, 1]")
    must(
        train.canvas == 0 or train.canvas >= train.image_size,
        config,
        "train.canvas",
        "0, or at least config.train.image_size",
    )
    must(train.last_stride in (1, 2), config, "train.last_stride", "1 or 2")
    check_training(config)


def check_segmenter(config: ml_collections.ConfigDict) -> None:
    """Like `check`, for training a UPerNet.

    Raises:
      UserError: a value is invalid; names key and value.
    """
    if "loss" not in config:
        raise UserError(
            "this is not a config for training a segmenter; "
            "use --config=configs/segmenter.py"
        )
    must(config.model.name == "upernet", config, "model.name", "upernet")
    if config.data.source != "scenes":
        raise UserError(
            f"config.data.source is {config.data.source!r}; a segmenter trains on "
            "masks of objects, parts and materials, which only 'scenes' has"
        )
    train = config.train
    depths = tuple(map(str, DEPTHS))
    must(train.depth in DEPTHS, config, "train.depth", f"one of {listed(depths)}")
    must(train.fpn_dim >= 1, config, "train.fpn_dim", "at least 1")
    must(train.window >= STRIDE, config, "train.window", f"at least {STRIDE} pixels")
    must(1 <= train.grid <= train.window, config, "train.grid", "1 .. the window")
    for head in config.loss:
        must(config.loss[head] >= 0, config, f"loss.{head}", "0 or more")
    check_training(config)
    side = segmenter_side(config)
    if side < STRIDE:
        raise UserError(
            f"config.train.window is {train.window}; the network would get it at "
            f"{side}x{side} pixels, but needs {STRIDE}x{STRIDE}"
        )


def check_training(config: ml_collections.ConfigDict) -> None:
    """Like `check`, for what all training needs."""
    train, mixing = config.train, config.augment
    must(mixing.jitter >= 0, config, "augment.jitter", "0 or more")
    must(mixing.lighting >= 0, config, "augment.lighting", "0 or more")
    for key in ("epochs", "batch_size", "bn_group", "width", "log_every"):
        must(train[key] >= 1, config, f"train.{key}", "at least 1")
    for key in ("num_images", "validation_images", "checkpoint_every", "seed"):
        must(train[key] >= 0, config, f"train.{key}", "0 or more")
    must(train.learning_rate > 0, config, "train.learning_rate", "above 0")
    must(0 <= train.momentum < 1, config, "train.momentum", "in [0, 1)")
    must(train.weight_decay >= 0, config, "train.weight_decay", "0 or more")
    check_evaluation(config)
    must(
        not config.model.weights or config.model.weights.startswith(shipped.PREFIX),
        config,
        "model.weights",
        "empty: training starts from random weights",
    )
    for key in ("python", "baseline"):
        empty = not config.model.get(key)
        must(empty, config, f"model.{key}", "empty in training")


def check_batch(config: ml_collections.ConfigDict, devices: int) -> None:
    """Rejects a batch that devices or groups cannot share evenly.

    Raises:
      UserError: the sizes do not fit; names sizes that do.
    """
    batch, group = config.train.batch_size, config.train.bn_group
    if batch % devices:
        below, above = batch // devices * devices, -(-batch // devices) * devices
        would = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"config.train.batch_size is {batch}, which {devices} devices cannot share "
            f"evenly; use {would}"
        )
    if not fits(group, batch, devices):
        would = ", ".join(map(str, fitting(batch, devices)))
        raise UserError(
            f"config.train.bn_group is {group}, which does not divide a batch of "
            f"{batch} on {devices} device{'s' * (devices > 1)} evenly; these fit: "
            f"{would}"
        )
    exchange = config.augment.group
    if exchange < 0 or batch % (exchange or batch):
        raise UserError(
            f"config.augment.group is {exchange}; it must divide "
            f"config.train.batch_size, {batch}, or be 0"
        )


def architecture(config: ml_collections.ConfigDict, classes: int) -> dict[str, Any]:
    """Returns {'name': ..., **options of `models.build`} of the network to train.

    Options that have their default and that converted networks lack are left out.
    """
    name = config.model.name
    if not name.startswith("resnet"):
        return {"name": name, "classes": classes}
    found = {"name": name, "width": config.train.width, "classes": classes}
    if config.train.last_stride != 2:
        found["last_stride"] = config.train.last_stride
    return found


def segmenter_architecture(
    config: ml_collections.ConfigDict, channels: Mapping[str, int]
) -> dict[str, Any]:
    """Like `architecture`, for a UPerNet; `channels` are the outputs of its heads."""
    options = {key: config.train[key] for key in ("depth", "width", "fpn_dim")}
    return {"name": config.model.name, **options, **channels}


def segmenter_side(config: ml_collections.ConfigDict) -> int:
    """Returns the side at which a UPerNet sees a crop in training.

    At that side, objects are as large as in a whole picture of `image_size`.
    """
    return round(config.train.image_size * config.train.window / SIDE)


def preprocessing(config: ml_collections.ConfigDict) -> Preprocessing:
    """Returns the normalization with which this architecture is trained."""
    return LITE if config.model.name.startswith("efficientnet_lite") else IMAGENET


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns every key that determines what is trained."""
    found = {"model.name": config.model.name, "dtype": config.dtype}
    found |= {f"data.{key}": config.data[key] for key in ("source", "name")}
    if exif_rotation(config.data):  # keeps older training runs resumable
        found["data.exif_rotation"] = True
    for part in ("train", "augment"):
        found |= {f"{part}.{key}": value for key, value in config[part].items()}
    return {key: value for key, value in found.items() if key not in _OF_THE_RUN}
