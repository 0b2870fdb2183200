"""Runs one pass over the features of all images, with a step that never communicates.

Every device counts for itself in 32 bits; before a counter could overflow, and where
the journal saves, the counters of all devices are summed on the host in 64 bits.

Devices form a grid [data, unit] (`config.mesh.unit` columns): the devices of a row
shard an image's units, so that counters of more units than fit on one device are
possible. Units are independent of each other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jdissect.base.progress import ImageBars, Silent
from jdissect.dissection import unit_sharding
from jdissect.dissection.features import Features, Record
from jdissect.dissection.resume import Counter, Journal
from jdissect.ops import bit_masks
from jdissect.runtime.devices import Devices, Step
from jdissect.runtime.processes import Processes

COUNTER_LIMIT = 2**31 - 1  # per device


@dataclasses.dataclass(frozen=True)
class Tally:
    """Defines what a pass counts of one layer.

    Compiled programs are cached for equal `empty` and `update`, so these should be
    module-level functions or values.

    Attributes:
      empty: number of units -> the state of no data.
      update: (state, maps, batch, per_unit, shared, geometry, zero) -> state, on one
        device. The batch is a dict of `valid`, and if `labels` is set also of `labels`
        and `annotated`.
      merge: (state, state) -> state on NumPy arrays, in any order and grouping, in 64
        bits.
      join: (states of disjoint units, number of units) -> the state of all units.
      additive: whether `merge` adds every number; such states may be large.
      labels: whether `update` needs `batch["labels"]`.
      group: image numbers -> group of each, int32; `batch["group"]` with labels.
      start: like `empty`, if a device counts in another form.
      finish: (NumPy counts in that form, units=number of units) -> the state.
      prepare: (labels, valid, annotated) -> more or other entries of the batch,
        computed on the host from its label maps.
    """

    empty: Callable[[int], Any]
    update: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    join: Callable[[list[Any], int], Any] = unit_sharding.join
    additive: bool = False
    labels: bool = False
    group: Callable[[np.ndarray], np.ndarray] | None = None
    start: Callable[[int], Any] | None = None
    finish: Callable[..., Any] | None = None
    prepare: Callable[..., dict[str, np.ndarray]] | None = None


class Passes:
    """Runs passes over the features of all images.

    Attributes:
      features: records of all images.
      counters: devices that count.
      progress: shows the progress of each pass.
      journal: saves intermediate results.
      unit_parts: number of devices over which units are sharded.
      categories: number of categories of the vocabulary.
    """

    def __init__(
        self,
        features: Features,
        counters: Devices,
        progress: ImageBars | Silent,
        journal: Journal | None = None,
        unit_parts: int = 1,
        categories: int = 0,
    ):
        self.features, self.counters, self.progress = features, counters, progress
        self.journal = journal or Journal()
        self.unit_parts, self.categories = unit_parts, categories

    def run(
        self,
        name: str,
        tally: Tally,
        per_unit: Mapping[str, Any],
        shared: Any = None,
        picked: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Runs one pass.

        Args:
          name: name of the stage and its progress bar.
          tally: what to count.
          per_unit: {layer: pytree of arrays [..., unit]} passed to the step.
          shared: a pytree of arrays also passed to the step.
          picked: {layer: requested units}; by default all units of all layers.

        Returns:
          {layer: total over all batches and processes; int32 where sums fit}.
        """
        counter = _Counter(self, tally, per_unit, shared, picked)
        return count(name, counter, self.features, self.journal, self.progress)


def count(
    name: str,
    counter: Counter,
    features: Features,
    journal: Journal,
    progress: ImageBars | Silent,
) -> Any:
    """Returns the result of a pass over all images, resumed if it was interrupted.

    Args:
      name: name of the stage and its progress bar.
      counter: counts the batches.
      features: records of all images.
      journal: saves the counts.
      progress: shows the progress.
    """
    with journal.stage(name, counter) as stage:
        if not stage.done:
            records = features.again(stage.position)
            for record in progress(records, name, stage.position):
                counter.add(record)
                if stage.advanced():
                    stage.save(counter.drain())
            stage.finish(counter.drain())
    return stage.total


class _Counter:
    """Counts a tally on the devices; see `resume.Counter`."""

    def __init__(self, passes, tally, per_unit, shared, picked):
        self._passes, self._tally = passes, tally
        self._picked = picked
        counters, features = passes.counters, passes.features
        self._parts = passes.unit_parts
        self._units = {
            layer: features.units[layer] if picked is None else len(picked[layer])
            for layer in per_unit
        }
        share = {n: -(-units // self._parts) for n, units in self._units.items()}
        self._share = share
        start = tally.start or tally.empty
        self._start = counters.fresh(_Empty(start, tuple(share.items())))
        self.empty = jax.eval_shape(self._nothing)
        self._rows = len(counters) // self._parts
        self._per_unit = counters.scatter(
            unit_sharding.per_device(dict(per_unit), self._rows, self._parts)
        )
        self._shared = counters.replicate((shared, np.int32(0)))
        geometry = tuple((layer, features.geometry[layer]) for layer in per_unit)
        self._update = counters.spmd(_step(tally.update, geometry))
        self._state, self._drained, self._used = None, None, 0

    def add(self, record: Record) -> None:
        counters, rows, parts = self._passes.counters, self._rows, self._parts
        batch: dict[str, Any] = {"valid": record.valid}
        if self._tally.labels:
            annotated = record.annotated
            if annotated is None:
                annotated = np.ones((len(record.valid), self._passes.categories))
            batch["labels"] = record.labels()
            batch["group"] = self._tally.group(np.maximum(record.index, 0))
            batch["annotated"] = np.asarray(annotated, bool)
            if self._tally.prepare:
                batch |= self._tally.prepare(
                    np.asarray(batch["labels"]), record.valid, batch["annotated"]
                )
        batch = _divisible(batch, rows)
        batch = {
            name: unit_sharding.repeated(a, rows, parts) for name, a in batch.items()
        }
        features = _divisible(self._wanted(record.features), rows)
        batch["features"] = {
            layer: unit_sharding.over_grid(maps, rows, parts)
            for layer, maps in features.items()
        }
        here = len(batch["valid"]) // len(counters) * self._passes.features.mask_pixels
        if self._used + here > COUNTER_LIMIT:
            self._drained, self._state = self._whole(), None
        if self._state is None:
            self._state, self._used = self._start(), 0
        batch = {**counters.scatter(batch), "per_unit": self._per_unit}
        self._state = self._update(self._state, batch, self._shared)
        self._used += here

    def drain(self) -> Any:
        total = self._whole()
        self._state, self._drained = None, None
        if total is None:
            total = jax.tree.map(np.asarray, self._nothing())
        return total

    def _nothing(self):
        return {n: self._tally.empty(units) for n, units in self._units.items()}

    def merge(self, first: Any, second: Any) -> Any:
        return each(self._tally.merge)(first, second)

    def across(self, processes: Processes, partial: Any) -> Any:
        if self._tally.additive:
            return processes.total(partial)
        return processes.fold(self.merge, partial)

    def _whole(self):
        """Returns the devices' states merged with those drained before."""
        if self._state is None:
            return self._drained
        parts = self._parts
        columns = [self._finished(self._column(part)) for part in range(parts)]
        whole = columns[0]
        if parts > 1:
            whole = {
                layer: self._tally.join([column[layer] for column in columns], units)
                for layer, units in self._units.items()
            }
        return whole if self._drained is None else self.merge(self._drained, whole)

    def _finished(self, counts):
        finish = self._tally.finish
        if finish is None:
            return counts
        return {n: finish(counts[n], units=units) for n, units in self._share.items()}

    def _column(self, part):
        """Returns the counts of the devices that share one part of the units."""
        states = per_device(self._state, part, self._parts)
        if not self._tally.additive:
            states = (jax.tree.map(_wide, state) for state in states)
            return functools.reduce(self.merge, states)
        # One sum over all, as it is large; in 64 bits only if 32 could overflow.
        kind = np.int32 if self._used * self._rows <= COUNTER_LIMIT else np.int64
        first, total = next(states), None
        for state in states:
            if total is None:
                add_ = functools.partial(np.add, dtype=kind)
                total = jax.tree.map(add_, first, state)
            else:
                jax.tree.map(lambda a, b: np.add(a, b, out=a), total, state)
        if total is None:
            total = jax.tree.map(lambda a: a.astype(kind, copy=False), first)
        return total

    def _wanted(self, features):
        if self._picked is None:
            return features
        return {
            name: features[name]
            if len(units) == features[name].shape[-1]
            else features[name][..., units]
            for name, units in self._picked.items()
        }


@dataclasses.dataclass(frozen=True)
class _Empty:
    """Creates the state of no data, for every layer."""

    of_layer: Callable[[int], Any]
    units: tuple[tuple[str, int], ...]

    def __call__(self) -> dict[str, Any]:
        return {layer: self.of_layer(units) for layer, units in self.units}


@functools.lru_cache(maxsize=128)
def _step(
    update: Callable[..., Any], geometry: tuple[tuple[str, bit_masks.Geometry], ...]
) -> Step:
    """Returns `update` for every layer; the same object for equal arguments."""

    def step(state, batch, constants):
        shared, zero = constants
        per_unit = jax.tree.map(lambda array: array[0], batch["per_unit"])
        return {
            layer: update(
                state[layer],
                batch["features"][layer],
                batch,
                per_unit[layer],
                shared,
                plan,
                zero,
            )
            for layer, plan in geometry
        }

    return Step(step)


def add(first: Any, second: Any) -> Any:
    """Returns the sum of two trees of integers, in 64 bits."""
    return jax.tree.map(functools.partial(np.add, dtype=np.int64), first, second)


def each(merge):
    """Returns `merge` applied to every layer."""
    return lambda first, second: {n: merge(first[n], second[n]) for n in first}


def per_device(state: Any, first: int = 0, step: int = 1) -> Iterator[Any]:
    """Yields the state of every `step`th device; views where possible."""
    for device in range(first, len(jax.tree.leaves(state)[0]), step):
        yield jax.tree.map(functools.partial(_of_device, device), state)


def _of_device(device: int, array: jax.Array) -> np.ndarray:
    shards = {
        shard.index[0].start or 0: shard.data for shard in array.addressable_shards
    }
    return np.asarray(shards[device])[0]


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(np.int64)


def _divisible(batch, parts: int):
    """Pads the batch with images that do not count, so that it can be sharded."""
    images = len(next(iter(batch.values())))
    missing = -images % parts
    if not missing:
        return batch
    return {
        name: np.pad(np.asarray(array), [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for name, array in batch.items()
    }
