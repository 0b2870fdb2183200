"""Recomputes where units fire in the images of their highest activation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jdissect.base.errors import UserError
from jdissect.ops import float_keys
from jdissect.ops.upsample import upsample
from jdissect.results.layer_result import Result


def top_masks(
    result: Result, units: Sequence[int] | Int[np.ndarray, " unit"]
) -> Bool[np.ndarray, "unit k height width"]:
    """Returns the mask grid's pixels that exceed T_k, exactly as counted.

    Args:
      result: result of a layer, with `top_map` and `mask_shape`.
      units: numbers of units.

    Raises:
      UserError: the result has no maps.
    """
    if result.top_map is None or result.mask_shape is None:
        raise UserError(
            f"{result.layer} was dissected by an older version; run again with "
            "--overwrite"
        )
    numbers = np.asarray(units, np.int64)
    maps = np.moveaxis(result.top_map[numbers], 0, -1)  # k height width unit
    pixels = np.asarray(upsample(maps, result.mask_shape))
    # A subnormal number counts as 0 and does not exceed a T_k of 0.
    cuts = float_keys.cuts(float_keys.to_keys_host(result.thresholds[numbers]))
    return np.moveaxis(pixels > cuts, -1, 0)
