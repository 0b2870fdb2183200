"""Runs the first pass: the network on all images, with every unit's top images."""

import functools

import jax
import numpy as np

from jdissect.dissection import passes
from jdissect.dissection.features import Features
from jdissect.dissection.resume import Journal
from jdissect.ops import float_keys, topk
from jdissect.runtime.devices import Devices, Step

NAME = "network"  # name of the stage


class TopImages:
    """Finds the top images from the network's feature maps; see `resume.Counter`.

    The result is {'tops': {layer: TopK}, 'seen': number of valid images, 'annotated':
    how many of them count for each category, 'last': number of the last image}.
    Unreadable images are added to the journal's notes.

    Args:
      features: records of all images.
      devices: devices that run the network.
      k: number of top images per unit.
      journal: the run's journal.
      categories: number of categories of the vocabulary.
    """

    def __init__(
        self,
        features: Features,
        devices: Devices,
        k: int,
        journal: Journal,
        categories: int,
    ):
        self._features, self._devices, self._k = features, devices, k
        self._journal = journal
        self._none = np.zeros(categories, np.int64)
        self._state, self._seen, self._last = None, 0, -1
        self._annotated = self._none
        self._update = self._devices.spmd(_STEP)

    @property
    def empty(self):
        units = self._features.units
        tops = {name: topk.empty(self._k, n) for name, n in units.items()}
        return _first(tops, 0, self._none, -1)

    def add(self, record):
        if self._state is None:
            self._state = self._devices.states(self.empty["tops"])
        seen = int(record.valid.sum())
        self._seen += seen
        if record.annotated is None:
            self._annotated = self._annotated + seen
        else:
            counted = np.asarray(record.annotated, bool)[record.valid]
            self._annotated = self._annotated + counted.sum(axis=0)
        self._last = max(self._last, int(record.index.max()))
        if record.skipped:
            found = {str(index): reason for index, reason in record.skipped}
            self._journal.note("skipped", found)
        batch = {
            "features": record.features,
            "index": record.index,
            "valid": record.valid,
        }
        self._state = self._update(self._state, self._devices.scatter(batch), None)

    def drain(self):
        own = self._seen, self._annotated, self._last
        parts = [_first(self.empty["tops"], *own)]
        if self._state is not None:
            parts += [
                _first(tops, 0, self._none, -1)
                for tops in passes.per_device(self._state)
            ]
        self._state, self._seen, self._annotated = None, 0, self._none
        return functools.reduce(self.merge, parts)

    def merge(self, first, second):
        tops = passes.each(topk.merge)(first["tops"], second["tops"])
        return _first(
            tops,
            first["seen"] + second["seen"],
            first["annotated"] + second["annotated"],
            max(first["last"], second["last"]),
        )

    def across(self, processes, partial):
        return processes.fold(self.merge, partial)


def _step(state, batch, constants):
    del constants
    return {
        name: topk.update(
            state[name], float_keys.canonical(maps), batch["index"], batch["valid"]
        )
        for name, maps in batch["features"].items()
    }


_STEP = Step(_step)


def _first(tops, seen, annotated, last):
    tree = {"tops": tops, "seen": seen, "annotated": annotated, "last": last}
    return jax.tree.map(lambda array: np.asarray(array, np.int64), tree)
