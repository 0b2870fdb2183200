"""Computes the scores of a layer's result, for `Result.scores`."""

from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jdissect.base.errors import UserError
from jdissect.scoring import from_counts
from jdissect.scoring.from_counts import Counts, Scores

Counting = Callable[[np.ndarray, np.ndarray], Counts]


def scores(result: Any, names: Sequence[str] | None, pairs: str) -> Scores:
    """Returns scores of a layer's units; see `Result.scores`.

    Args:
      result: a `layer_result.Result`.
      names: the scores; None for all for which there are counts.
      pairs: 'best' for each unit with its concept, 'all' for every concept.

    Raises:
      UserError: a score does not exist, or its counts were not kept.
    """
    if pairs not in ("best", "all"):
        raise UserError(f"pairs is {pairs!r:.40}; it must be 'best' or 'all'")
    missing = _missing(result)
    if names is None:
        names = [name for name in from_counts.NAMES if name not in missing]
    from_counts.check(names, missing)
    count = _counting(result, {n for name in names for n in from_counts.needs(name)})
    unit = np.arange(len(result.thresholds))
    if pairs == "all":
        column = np.arange(len(result.concepts))
        values = from_counts.of_all_pairs(
            names,
            lambda some: count(some[:, None], column[None]),
            len(unit),
            len(column),
        )
    else:
        column = np.asarray(result.best_concept)
        named = column >= 0
        here = count(unit[named], column[named])
        values = {name: np.full(len(unit), np.nan) for name in names}
        for name, value in values.items():
            value[named] = from_counts.score(name, here)
    return Scores(
        values=values,
        missing=missing,
        unit=unit,
        column=column,
        unit_names=result.unit_names,
        concepts=result.concepts,
        categories=result.categories,
    )


def of_pairs(
    result: Any, unit: Int[np.ndarray, "..."], column: Int[np.ndarray, "..."]
) -> dict[str, Float[np.ndarray, "..."]]:
    """Returns {score: float64 values} of some pairs, all for which there are counts.

    Args:
      result: a `layer_result.Result`.
      unit, column: units and columns of concepts; they broadcast.
    """
    missing = _missing(result)
    names = [name for name in from_counts.NAMES if name not in missing]
    count = _counting(result, {n for name in names for n in from_counts.needs(name)})
    counts = count(unit, column)
    return {name: from_counts.score(name, counts) for name in names}


def _missing(result: Any) -> dict[str, str]:
    """Returns {score: why there are no counts for it}."""
    reasons = {}
    if result.blocks is None:
        reason = "its counts by block of images were not kept"
        reasons = dict.fromkeys(("fires", "concept", "pixels"), reason)
    elif result.mask_shape is None or not set(result.categories) <= set(
        result.category_images or ()
    ):
        reasons["pixels"] = (
            "the result is of an older version, which did not keep how many images "
            "count for each category"
        )
    if result.by_image is None:
        reasons["images_of_both"] = (
            "its counts by image were not kept, as the set is large"
        )
    return {
        name: reasons[needed[0]]
        for name in from_counts.NAMES
        if (needed := [n for n in from_counts.needs(name) if n in reasons])
    }


def _counting(result: Any, needed: Set[str]) -> Counting:
    """Returns a function (units, columns) -> their counts, those that are needed."""
    blocks, by_image = result.blocks, result.by_image
    found: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "both": lambda u, c: result.intersection[u, c],
        "union": lambda u, c: result.union[u, c],
    }
    if needed & {"fires", "concept"}:
        fires, concept = blocks.unit.sum(axis=0), blocks.concept.sum(axis=0)
        found["fires"] = lambda u, c: fires[blocks.category[c], u]
        found["concept"] = lambda u, c: concept[c]
    if "pixels" in needed:
        height, width = result.mask_shape
        images = [result.category_images[name] for name in result.categories]
        pixels = np.array(images, np.int64) * (height * width)
        found["pixels"] = lambda u, c: pixels[c]
    if "images_of_both" in needed:
        both = by_image.groups_of_both()
        of_unit = (by_image.unit > 0).sum(axis=0)
        of_concept = (by_image.concept > 0).sum(axis=0)
        found["images_of_both"] = lambda u, c: both[u, c]
        found["images_of_unit"] = lambda u, c: of_unit[by_image.category[c], u]
        found["images_of_concept"] = lambda u, c: of_concept[c]
    return lambda u, c: Counts(**{name: count(u, c) for name, count in found.items()})
