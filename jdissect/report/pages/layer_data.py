"""Prepares a layer's result for a page's scripts."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jdissect.base import unit_names
from jdissect.report.pages import embedding, masks
from jdissect.results.layer_result import Result

BEST = 5  # concepts per unit
BINS = 64  # maximum number of bins of a histogram
FEW_BINS = 8  # the same for a page of a great many units
NAME = 160  # maximum characters of a shown name


def best_concepts(
    result: Result, count: int = BEST
) -> tuple[Int[np.ndarray, "unit best"], Float[np.ndarray, "unit best"]]:
    """Returns (columns, float64 IoU) of each unit's best concepts, the best first.

    Ties go to the lower column, as for the unit's own concept. A unit that never fires
    has none: all its IoU are 0.
    """
    iou = result.intersection / np.maximum(result.union, 1)
    columns = np.argsort(-iou, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(iou, columns, axis=1)
    return columns, np.where(result.fires[:, None] > 0, found, 0.0)


def best_units(
    result: Result,
) -> tuple[Int[np.ndarray, " concept"], Float[np.ndarray, " concept"]]:
    """Returns (unit, float64 IoU) of each concept's best unit, of any own concept."""
    if not len(result.thresholds):
        none = np.zeros(len(result.concepts))
        return none.astype(int), none
    iou = result.intersection / np.maximum(result.union, 1)
    iou = np.where(result.fires[:, None] > 0, iou, 0.0)
    units = iou.argmax(axis=0)
    return units, np.take_along_axis(iou, units[None], axis=0)[0]


def histogram(
    result: Result, bins: int = BINS
) -> tuple[Int[np.ndarray, "unit bin"], Float[np.ndarray, "unit edge"]]:
    """Returns (counts, edges) with adjacent bins merged to at most `bins`.

    The first bin stays: it often holds the exact zeros of a ReLU. Of a unit that fires
    in the lower tail, the histogram is that of the activation's own sign.
    """
    counts, edges = _merged(result, bins)
    if (result.signs > 0).all():
        return counts, edges
    lower = result.signs[:, None] < 0
    return (
        np.where(lower, counts[:, ::-1], counts),
        np.where(lower, -edges[:, ::-1] + 0, edges),
    )


def _merged(result: Result, bins: int):
    counts, edges = result.histogram_counts, result.histogram_edges
    join = -(-(counts.shape[1] - 1) // (bins - 1))
    if join <= 1:
        return counts, edges
    starts = np.r_[0, np.arange(1, counts.shape[1], join)]
    kept = np.r_[starts, counts.shape[1]]
    return np.add.reduceat(counts, starts, axis=1), edges[:, kept]


def ends(result: Result) -> str:
    """Returns what follows the number in the units' names, for `shared.js`."""
    return " ".join(unit_names.TAILS[result.tail])


def described(result: Result, categories: tuple[str, ...]) -> dict[str, Any]:
    """Returns names and numbers of a layer, without its arrays.

    Args:
      result: result of the layer.
      categories: categories of the page, in order.
    """
    return {
        "name": result.layer,
        "units": len(result.thresholds),
        "ends": ends(result),
        "images": result.images,
        "quantile": result.quantile,
        "thresholds": list(result.iou_thresholds),
        "concepts": [short(name) for name in result.concepts],
        "category": [categories.index(name) for name in result.categories],
    }


def unit_arrays(result: Result, shown: Int[np.ndarray, " place"]) -> dict[str, Any]:
    """Returns the data for the list of units.

    Args:
      result: result of the layer.
      shown: images of the page, ascending.
    """
    columns, iou = best_concepts(result)
    concept_unit, concept_iou = best_units(result)
    return {
        "k": result.top_image.shape[1],
        "five": columns.shape[1],
        "best": embedding.packed(result.best_concept, "i4"),
        "fires": embedding.packed(result.fires > 0, "u1"),
        # Exact values: a slider's count equals `Result.unique_concepts`.
        "iou": embedding.packed(result.best_iou, "f8"),
        "fiveConcept": embedding.packed_integers(columns),
        "fiveIou": embedding.packed(iou, "f8"),
        "threshold": embedding.packed(result.shown_thresholds, "f4"),
        "topImage": embedding.packed_integers(np.searchsorted(shown, result.top_image)),
        "topValue": embedding.packed(result.shown_top_value, "f4"),
        "conceptUnit": embedding.packed_integers(concept_unit),
        "conceptIou": embedding.packed(concept_iou, "f8"),
    }


def histogram_arrays(result: Result, bins: int = BINS) -> dict[str, Any]:
    """Returns the data for the units' histograms, of `FEW_BINS` to `BINS` bins."""
    counts, edges = histogram(result, min(max(bins, FEW_BINS), BINS))
    return {
        "bins": counts.shape[1],
        "counts": embedding.packed(counts, "f4"),
        "edges": embedding.packed(edges, "f4"),
    }


def mask_arrays(runs: masks.Runs | None) -> dict[str, Any] | None:
    """Returns the data for overlays; None without masks."""
    if runs is None:
        return None
    return {
        "shape": list(runs.shape),
        "ranks": runs.ranks,
        "ends": embedding.packed_integers(runs.ends),
        "data": embedding.packed(runs.data, "u1"),
    }


def short(name: str) -> str:
    """Shortens a name that would flood the page."""
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
