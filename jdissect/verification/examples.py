"""Picks pairs of pictures to show, for the units with the highest and lowest AUC."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from jdissect.ops import float_keys
from jdissect.ops.upsample import upsample
from jdissect.results.layer_result import Result
from jdissect.scenes.counterfactual import REMOVED, REPAINTED
from jdissect.verification.counterfactuals import Counterfactuals, number_of
from jdissect.verification.responses import MEAN, Responses, Run, Shot, maps_of
from jdissect.verification.verified import Example, Verified

EACH = 4  # units of highest AUC, and as many of lowest, each of another concept


def examples(
    result: Result,
    found: Verified,
    units: Mapping[int, Int[np.ndarray, " unit"]],
    read: Responses,
    drawn: Counterfactuals,
    run: Run,
    size: int,
) -> tuple[Example, ...]:
    """Returns the pair of largest change of the best units, of smallest of the worst.

    Args:
      result: result of the layer.
      found: its judged labels.
      units: {number of a concept: units that were read for it, ascending}.
      read: activations of the layer.
      drawn: the pictures.
      run: runs the network, see `responses.measure`.
      size: pictures per batch.
    """
    chosen = [(row, True) for row in _rows(found, -found.auc)]
    chosen += [(row, False) for row in _rows(found, found.auc)]
    if not chosen:
        return ()
    shots: list[Shot] = []
    for row, best in chosen:
        number = number_of(found.concept[row], found.category[row])
        assert number is not None  # it was changed
        at = np.searchsorted(units[number], found.unit[row])
        pairs = read.changed[number]
        change = pairs.with_it[:, MEAN, at] - pairs.without[:, MEAN, at]
        pair = int(change.argmax() if best else change.argmin())
        shots += drawn.pair(int(pairs.pictures[pair]), number)
    maps = maps_of(shots, found.layer, run, size)
    shape = shots[0].maps.shape[1:]
    examples = []
    for place, (row, best) in enumerate(chosen):
        unit, both = int(found.unit[row]), slice(2 * place, 2 * place + 2)
        pixels = np.asarray(upsample(maps[both, :, :, unit, None], shape))[..., 0]
        # As `report.top_masks`: a subnormal number does not exceed a T_k of 0.
        cut = float_keys.cuts(float_keys.to_keys_host(result.thresholds[[unit]]))
        pictures = np.stack([shot.pixels for shot in shots[both]])
        examples.append(Example(row, best, pictures, pixels > cut))
    return tuple(examples)


def _rows(found: Verified, order: np.ndarray) -> list[int]:
    """Returns the first rows that were judged by pairs, of different concepts."""
    rows: list[int] = []
    seen = set()
    for row in np.argsort(order, kind="stable"):
        concept = found.concept[row], found.category[row]
        if found.way[row] in (REMOVED, REPAINTED) and concept not in seen:
            seen.add(concept)
            rows.append(int(row))
    return rows[:EACH]
