"""Checks the config values of a dissection."""

from typing import Any

import ml_collections

from jdissect.base import unit_names
from jdissect.base.errors import UserError
from jdissect.dissection import kernels
from jdissect.runtime import machine
from jdissect.runtime.devices import MODES

DTYPES = ("float32", "bfloat16")


def check(config: ml_collections.ConfigDict) -> None:
    """Rejects invalid values.

    Raises:
      UserError: a value is invalid; names key and value.
    """

    def must(condition: bool, key: str, value: Any, what: str) -> None:
        if not condition:
            raise UserError(f"config.{key} is {value!r}; it must be {what}")

    data, segmenter = config.data, config.segmenter
    must(data.batch_size >= 1, "data.batch_size", data.batch_size, "at least 1")
    must(data.workers >= 0, "data.workers", data.workers, "0 or more")
    must(data.num_images >= 0, "data.num_images", data.num_images, "0 (all) or more")
    must(
        segmenter.batch_size >= 1,
        "segmenter.batch_size",
        segmenter.batch_size,
        "at least 1",
    )
    must(0 < config.quantile < 1, "quantile", config.quantile, "between 0 and 1")
    must(config.mask_size >= 0, "mask_size", config.mask_size, "0 or a side in pixels")
    must(config.topk >= 1, "topk", config.topk, "at least 1")
    must(len(config.model.layers) > 0, "model.layers", (), "at least one layer")
    must(
        len(set(config.model.layers)) == len(config.model.layers),
        "model.layers",
        tuple(config.model.layers),
        "without repetitions",
    )
    thresholds = tuple(config.iou_thresholds)
    must(
        len(thresholds) > 0 and all(0 <= t < 1 for t in thresholds),
        "iou_thresholds",
        thresholds,
        "at least one number in [0, 1)",
    )
    tails = tuple(unit_names.TAILS)
    must(config.tail in tails, "tail", config.tail, ", ".join(tails))
    must(config.dtype in DTYPES, "dtype", config.dtype, " or ".join(DTYPES))
    must(config.parallel in MODES, "parallel", config.parallel, " or ".join(MODES))
    must(
        config.kernels in ("", *kernels.NAMES),
        "kernels",
        config.kernels,
        f"{', '.join(kernels.NAMES)}, or '' for those of the devices",
    )
    must(
        config.checkpoint_every >= 0,
        "checkpoint_every",
        config.checkpoint_every,
        "0 (about a minute) or a number of steps",
    )
    must(config.mesh.unit >= 1, "mesh.unit", config.mesh.unit, "at least 1")
    must(config.cache.max_gb >= 0, "cache.max_gb", config.cache.max_gb, "0 or more")
    keep = machine.FEATURES
    must(
        config.cache.features in keep,
        "cache.features",
        config.cache.features,
        ", ".join(keep),
    )
