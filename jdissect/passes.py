"""One pass: a loop over batches around a step that never communicates.

Every device counts for itself, in 32 bits; before a counter could overflow, and at the
end, the counters of all devices are added up on the host, in 64.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jdissect.features import Features
from jdissect.parallel import Devices

COUNTER_LIMIT = 2**31 - 1  # of a device's counter


class Passes:
    """Passes over the features of all images.

    Attributes:
      features: of all images.
      counters: the devices that count.
      progress: (iterable, description) -> iterable, wraps every pass.
    """

    def __init__(
        self,
        features: Features,
        counters: Devices,
        progress: Callable[[Iterable, str], Iterable],
    ):
        self.features, self.counters, self.progress = features, counters, progress

    def run(
        self,
        description: str,
        update: Callable[[Any, Any, Any], Any],
        empty: Any,
        constants: Any,
        merge: Callable[[Any, Any], Any],
        categories: int | None = None,
        picked: dict[str, np.ndarray] | None = None,
    ) -> Any:
        """One pass.

        Args:
          description: for the progress bar.
          update: the step, (state, batch, constants) -> state, on one device; the
            batch is a dict of `features` by layer and `valid`.
          empty: the state of no data.
          constants: a pytree of arrays that every step gets.
          merge: (state, state) -> state on NumPy arrays, in any order and grouping.
          categories: if given, the batch also has `labels` and `annotated`, so wide.
          picked: {layer: its units that are wanted}; by default all of all layers.

        Returns:
          What all batches come to, int64.
        """
        counters = self.counters
        step = counters.spmd(update)
        constants = counters.replicate(constants)
        state, drained, used = counters.states(empty), None, 0
        for record in self.progress(self.features.again(), description):
            batch = {
                "features": _picked(record.features, picked),
                "valid": record.valid,
            }
            if categories is not None:
                annotated = record.annotated
                if annotated is None:
                    annotated = np.ones((len(record.valid), categories))
                batch["labels"] = record.labels()
                batch["annotated"] = np.asarray(annotated, bool)
            batch = _divisible(batch, len(counters))
            here = len(batch["valid"]) // len(counters) * self.features.mask_pixels
            if used + here > COUNTER_LIMIT:
                drained = merged(state, merge, drained)
                state, used = counters.states(empty), 0
            state = step(state, counters.scatter(batch), constants)
            used += here
        return merged(state, merge, drained)


def _picked(features, picked):
    if picked is None:
        return features
    return {
        name: features[name]
        if len(units) == features[name].shape[-1]
        else features[name][..., units]
        for name, units in picked.items()
    }


def _divisible(batch, parts: int):
    """The batch with images that do not count, so that it can be shared out."""
    missing = -len(batch["valid"]) % parts
    if not missing:
        return batch
    return jax.tree.map(
        lambda array: np.pad(
            np.asarray(array), [(0, missing)] + [(0, 0)] * (array.ndim - 1)
        ),
        batch,
    )


def each(merge):
    """`merge` for every layer."""
    return lambda first, second: {n: merge(first[n], second[n]) for n in first}


def merged(state, merge, total=None):
    """The devices' states and what was drained before as one, in 64 bits."""
    state = jax.tree.map(lambda array: np.asarray(array).astype(np.int64), state)
    devices = len(jax.tree.leaves(state)[0])
    parts = [jax.tree.map(lambda array, d=d: array[d], state) for d in range(devices)]
    return functools.reduce(merge, parts if total is None else [total, *parts])
