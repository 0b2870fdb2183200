"""Checks the types and maximum sizes of config values, for every command.

Types are checked down to the elements of a tuple; the command that uses a number checks
its meaning. A config file is a program, so its values are checked like those of the
command line.
"""

import math
import numbers
from collections.abc import Iterator
from typing import Any

import ml_collections

from jdissect.base.errors import UserError

_COUNT = 2**31 - 1  # images, steps...: counted in 32 bits

# Key -> an example of its type. Any other key has the type of its default.
_EXAMPLES: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("model.name", "model.weights", "model.python"),
            *("data.source", "data.path", "data.name", "data.split"),
            *("data.class_order", "data.annotations"),
            *("train.split", "train.validation_split", "augment.recipe"),
            *("segmenter.name", "segmenter.upernet", "segmenter.color"),
            *("segmenter.quarters", "dtype", "parallel", "cache.dir", "cache.features"),
        ),
        "",
    ),
    **dict.fromkeys(
        (
            *("data.strict", "data.exif_rotation", "augment.crop", "augment.flip"),
            *("augment.one_box_per_batch", "report"),
        ),
        True,
    ),
    **dict.fromkeys(
        (
            *("train.learning_rate", "train.momentum", "train.weight_decay"),
            *("augment.alpha", "augment.crop_area", "augment.jitter"),
            *("augment.lighting", "quantile"),
            *("loss.object", "loss.part", "loss.material", "loss.scene"),
        ),
        0.5,
    ),
    "cache.max_gb": 20.0,
    "model.layers": ("layer4",),
    "train.metrics": ("tensorboard", "wandb"),
    **dict.fromkeys(("model.mean", "model.std"), (0.5,)),
    "iou_thresholds": (0.03, 0.04),
    "train.milestones": (0.25, 0.5),
}

_UNSET = ("augment.one_box_per_batch",)  # may be None

# Key -> the largest sensible value; all but one are whole numbers.
_MOST: dict[str, float] = {
    **dict.fromkeys(("data.batch_size", "segmenter.batch_size"), 2**16),
    "data.num_images": _COUNT,
    "data.workers": 1024,
    **dict.fromkeys(("train.num_images", "train.validation_images"), _COUNT),
    **dict.fromkeys(("train.batch_size", "train.bn_group", "augment.group"), 2**20),
    **dict.fromkeys(("train.width", "train.fpn_dim"), 2**14),
    **dict.fromkeys(("train.depth", "train.last_stride"), 2**10),
    **dict.fromkeys(("train.image_size", "train.window", "train.grid"), 2**13),
    "train.canvas": 2**14,
    "model.size": 4096,
    "train.epochs": 10**6,
    **dict.fromkeys(("train.seed", "data.seed", "model.baseline_seed"), 2**32 - 1),
    **dict.fromkeys(("train.log_every", "train.checkpoint_every"), _COUNT),
    "checkpoint_every": _COUNT,
    "mask_size": 4096,
    "topk": 2**16,
    "mesh.unit": 2**16,
    "cache.max_gb": 1e9,
}

_WHOLE, _NUMBER = "a whole number", "a finite number"


def check(
    config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict
) -> None:
    """Checks a config's value types; replaces tuples from the command line.

    Args:
      config: the config with command line overrides, where ('a,b',) becomes
        ('a', 'b').
      defaults: the config without overrides.

    Raises:
      UserError: a value has the wrong type or is too large; names key and value.
    """
    known = dict(leaves(defaults))
    for key, value in list(leaves(config)):
        example = _EXAMPLES.get(key, 1 if key in _MOST else known.get(key))
        if isinstance(example, (tuple, list)):
            value = _elements(key, value, example)
            _set(config, key, value)
        elif example is not None and not (value is None and key in _UNSET):
            _check_one(key, value, example)


def leaves(config: ml_collections.ConfigDict, path: str = "") -> Iterator[tuple]:
    """Yields (dotted key, value) of every value in the config."""
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _elements(key: str, value: Any, example: Any) -> tuple:
    of_numbers = bool(example) and not isinstance(example[0], str)
    what = f"{'numbers' if of_numbers else 'names'}, such as {_listed(example)}"
    if not isinstance(value, (tuple, list)):
        _refuse(key, value, what)
    found: list[Any] = []
    for element in value:
        if isinstance(element, str):
            parts = [part.strip() for part in element.split(",")]
            parts = [part for part in parts if part]
            found += [_number(part) for part in parts] if of_numbers else parts
        elif _is_number(element):
            # A number may be a layer's name.
            found.append(element if of_numbers else str(element))
        else:
            found.append(None)
    if None in found:
        _refuse(key, value, what)
    return tuple(found)


def _check_one(key: str, value: Any, example: Any) -> None:
    if isinstance(example, bool):
        if not isinstance(value, bool):
            _refuse(key, value, "True or False")
    elif isinstance(example, str):
        if not isinstance(value, str):
            _refuse(key, value, "a string")
        if "\0" in value:
            _refuse(key, value, "free of null characters")
    elif isinstance(example, numbers.Real):
        whole = isinstance(example, int)
        if not _is_number(value) or (whole and not isinstance(value, numbers.Integral)):
            _refuse(key, value, _WHOLE if whole else _NUMBER)
        most = _MOST.get(key, _COUNT if whole else math.inf)
        if value > most:
            _refuse(key, value, f"at most {most:.0f}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return isinstance(value, numbers.Integral) or math.isfinite(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _listed(example: Any) -> str:
    return ",".join(map(str, example)) if example else "a,b"


def _set(config: ml_collections.ConfigDict, key: str, value: tuple) -> None:
    *path, last = key.split(".")
    for part in path:
        config = config[part]
    if config[last] != value:
        config[last] = value


def _refuse(key: str, value: Any, what: str) -> None:
    text = repr(value)
    if len(text) > 60:
        text = f"{text[:40]}... ({len(text)} characters)"
    raise UserError(f"config.{key} is {text}; it must be {what}")
