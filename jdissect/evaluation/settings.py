"""Checks the config values of an evaluation."""

from collections.abc import Iterable
from typing import Any

import ml_collections

from jdissect.base.errors import UserError
from jdissect.runtime.devices import MODES

DTYPES = ("float32", "bfloat16")


def check_evaluation(config: ml_collections.ConfigDict) -> None:
    """Rejects invalid values.

    Raises:
      UserError: a value is invalid; names key and value.
    """
    least = "at least 32 pixels"
    must(config.train.image_size >= 32, config, "train.image_size", least)
    must(config.dtype in DTYPES, config, "dtype", listed(DTYPES))
    must(config.parallel in MODES, config, "parallel", listed(MODES))
    must(config.data.batch_size >= 1, config, "data.batch_size", "at least 1")
    must(config.data.workers >= 0, config, "data.workers", "0 or more")


def must(condition: bool, config: Any, key: str, what: str) -> None:
    """Rejects config[key] by name unless `condition` holds.

    Raises:
      UserError: says what the value must be.
    """
    if not condition:
        part, _, name = key.rpartition(".")
        value = (config[part] if part else config)[name]
        raise UserError(f"config.{key} is {value!r}; it must be {what}")


def listed(names: Iterable[str]) -> str:
    """Joins names for a message."""
    return ", ".join(names)
