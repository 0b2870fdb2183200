"""Reduces a dissection of signed units to the units of the network that are zeroed."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from jdissect.base import unit_names
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.results.finished_run import StoredRun
from jdissect.results.layer_result import Result


def of_network(result: Result) -> tuple[Result, Shaped[np.ndarray, " unit"]]:
    """Returns a result with one unit for each of the network, and its units' names.

    Of two ends of a unit it keeps the one of higher IoU (the upper one on a tie): a
    network's unit detects a concept if either end does. Counts by image and pictures
    are left out.
    """
    if result.tail == "upper":
        return result, result.unit_names
    ends = len(unit_names.TAILS[result.tail])
    best = result.best_iou.reshape(-1, ends).argmax(axis=1)
    rows = ends * np.arange(len(best)) + best
    per_unit = (
        *("thresholds", "intersection", "union", "fires", "top_value"),
        *("top_image", "histogram_counts", "histogram_edges"),
    )
    picked: dict[str, Any] = {name: getattr(result, name)[rows] for name in per_unit}
    found = result.replace(
        **picked, tail="upper", top_map=None, blocks=None, by_image=None
    )
    return found, result.unit_names[rows]


def check_own(run: StoredRun | None, layer: str, configured: str) -> None:
    """Raises UserError if the units are not the network's own: they cannot be zeroed.

    Args:
      run: the dissection of the units, if there is one.
      layer: the units' layer.
      configured: `config.model.units`.
    """
    files = run.identity.get("model.units") if run else None
    if run and isinstance(files, dict) and layer in files:
        raise UserError(
            f"{run.folder / layer} has units of config.model.units, not of the "
            "network; only the network's own units can be zeroed"
        )
    if run and (baseline := run.identity.get("model.baseline")):
        raise UserError(
            f"{run.folder} is a baseline, {printable(str(baseline), 40)}; only the "
            "network's own units can be zeroed"
        )
    if configured:
        raise UserError(
            "config.model.units is set, but only the network's own units can be zeroed"
        )
