"""The two passes of a dissection.

    images -> network -> features -> sketch -> sweeps -> thresholds T_k     first pass
                            +-> masks (a > T_k) x label maps -> counts      second pass

Every pass is a loop over batches around one per-device step that never communicates;
integers are added up at its end, in 64 bits on the host. Features are kept between
the passes where there is room, so that the network runs once an image; else every
pass runs it again.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdissect import results
from jdissect.concepts import Concepts, categories, columns
from jdissect.errors import UserError
from jdissect.ops import blocks, edges, iou, keys, sketch, sweep, topk
from jdissect.parallel import Devices

PILOT_IMAGES = 128  # looked at for placing the sketch's edges
MAX_SWEEPS = 5
COUNTER_LIMIT = 2**31 - 1  # of a device's counter, before it is emptied


@dataclasses.dataclass(frozen=True)
class Images:
    """One batch as a pass reads it; the leading axis is batch_size x devices.

    Attributes:
      index: int32, each image's number; -1 where padded.
      valid: bool, whether the image counts.
      pixels: whatever the network takes.
      labels: int[image, map, height, width], concept numbers, 0 for nothing.
      annotated: bool[image, category], or None: every image counts for all.
    """

    index: np.ndarray
    valid: np.ndarray
    pixels: Any
    labels: np.ndarray
    annotated: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """What of a batch the passes after the network need."""

    index: np.ndarray
    valid: np.ndarray
    features: dict[str, Any]
    labels: np.ndarray
    annotated: np.ndarray


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
      layers: names of the feature maps.
      quantile: share of pixels above T_k, at most; in (0, 1).
      topk: images a unit.
      keep: keep features between the passes.
    """

    layers: tuple[str, ...]
    quantile: float = 0.01
    topk: int = 5
    keep: bool = True


def _silent(iterable, description):
    del description
    return iterable


class Dissection:
    """A network, its layers and a vocabulary, ready to run over images.

    Args:
      apply: (params, pixels) -> {layer: [image, height, width, unit]}, pure.
      params: a pytree of arrays.
      concepts: vocabulary, (name, category) by number.
      settings: what is asked for.
      devices: where the network runs.
      counters: where activations are counted; by default the same. More of them never
        change a number.
      progress: (iterable, description) -> iterable, wraps every pass over batches.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], dict[str, jax.Array]],
        params: Any,
        concepts: Concepts,
        settings: Settings,
        devices: Devices,
        counters: Devices | None = None,
        progress: Callable[[Iterable, str], Iterable] = _silent,
    ):
        self.settings, self.devices, self.progress = settings, devices, progress
        self.counters = counters or devices
        self.seconds: dict[str, float] = {}
        self._columns = columns(concepts)
        self._concepts = concepts
        self._categories = categories(concepts)
        place = {name: i for i, name in enumerate(self._categories)}
        self._category = np.array(
            [place[concepts[number][1]] for number in self._columns], np.int32
        )
        # Concept number -> column + 1.
        self._column_of = np.zeros(len(concepts), np.int32)
        self._column_of[self._columns] = np.arange(1, len(self._columns) + 1)
        self._params = devices.replicate(params)
        self._zero = self.counters.replicate(np.int32(0))

        def forward(state, batch, params):
            del state
            features = apply(params, batch)
            missing = [name for name in settings.layers if name not in features]
            if missing:
                raise UserError(
                    f"no layer '{missing[0]}'; there are: {', '.join(features)}"
                )
            return {name: features[name] for name in settings.layers}

        self._forward = devices.spmd(forward)

    def run(
        self,
        read: Callable[[Sequence[int] | None], Iterable[Images]],
        count: int | None,
    ) -> dict[str, results.Result]:
        """Dissects all layers.

        Args:
          read: given None, all batches; given image numbers, batches of those.
            Unless features are kept, it is called again for every pass.
          count: how many images there are, None if only reading tells (then features
            must be kept).

        Raises:
          UserError: an activation that is not finite; no valid image.
        """
        settings = self.settings
        self._read = read
        with self._timed("first pass"):
            records, tops, seen = self._first_pass()
            if not seen:
                raise UserError("none of the images could be read")
            if count is None:
                count = 1 + max(int(record.index.max()) for record in records)
        self._kept = records
        with self._timed("sketch"):
            placed = self._place_edges(count)
            sketches = self._sketch(placed)
        pixels = seen * self._mask_pixels
        with self._timed("sweeps"):
            thresholds = self._thresholds(sketches, placed, pixels)
        with self._timed("intersections"):
            counts = self._intersections(thresholds)
        found = {}
        for layer in settings.layers:
            intersection, union, fires = iou.result(counts[layer], self._category)
            histogram = sketch.histogram(sketches[layer], placed[layer], pixels)
            top_value, top_image = topk.result(tops[layer], seen)
            names, of_category = results.column_names(self._concepts, self._columns)
            found[layer] = results.Result(
                thresholds=keys.from_keys_host(thresholds[layer]),
                intersection=intersection,
                union=union,
                fires=fires,
                concepts=names,
                categories=of_category,
                top_value=top_value,
                top_image=top_image,
                histogram_counts=histogram[0],
                histogram_edges=histogram[1],
                images=seen,
                quantile=settings.quantile,
                layer=layer,
            )
        return found

    def _timed(self, stage):
        return _Stopwatch(self.seconds, stage)

    # The network.

    def _records(self, indices: Sequence[int] | None = None) -> Iterator[Record]:
        """Batches with their features, from the network."""
        for images in self._read(indices):
            annotated = images.annotated
            if annotated is None:
                annotated = np.ones((len(images.valid), len(self._categories)), bool)
            small = len(self._concepts) <= np.iinfo(np.int16).max
            features = self._forward(
                self.devices.states(np.zeros(())),
                self.devices.scatter(images.pixels),
                self._params,
            )
            features = {
                name: maps.reshape(-1, *maps.shape[2:])
                for name, maps in features.items()
            }
            self._note_shapes(features, images.labels)
            yield Record(
                index=np.asarray(images.index, np.int32),
                valid=np.asarray(images.valid, bool),
                features=features,
                labels=np.asarray(images.labels).astype(
                    np.int16 if small else np.int32
                ),
                annotated=np.asarray(annotated, bool),
            )

    def _note_shapes(self, features, labels):
        shape = tuple(labels.shape[2:])
        for name, maps in features.items():
            if maps.ndim != 4:
                raise UserError(
                    f"layer '{name}' has shape {maps.shape}; a feature map is "
                    "[batch, height, width, units]"
                )
        self._mask_pixels = shape[0] * shape[1]
        self._units = {name: maps.shape[-1] for name, maps in features.items()}
        self._geometry = {
            name: blocks.plan(tuple(maps.shape[1:3]), shape)
            for name, maps in features.items()
        }

    def _first_pass(self):
        """Runs the network: (records or None, best images, number of valid images)."""
        records = [] if self.settings.keep else None
        seen, total, state, step = 0, None, None, None

        def update(state, batch, constants):
            del constants
            return {
                name: topk.update(
                    state[name], keys.canonical(maps), batch["index"], batch["valid"]
                )
                for name, maps in batch["features"].items()
            }

        for record in self.progress(self._records(), "network"):
            if step is None:
                step = self.devices.spmd(update)
                state = self.devices.states(
                    {
                        name: topk.empty(self.settings.topk, units)
                        for name, units in self._units.items()
                    }
                )
            seen += int(record.valid.sum())
            batch = {
                "features": record.features,
                "index": record.index,
                "valid": record.valid,
            }
            state = step(state, self.devices.scatter(batch), None)
            if records is not None:
                kept = {n: np.asarray(maps) for n, maps in record.features.items()}
                records.append(dataclasses.replace(record, features=kept))
        if seen:
            total = _merged(state, _each(topk.merge))
        return records, total, seen

    def _replay(self, description: str) -> Iterable[Record]:
        records = self._kept if self._kept is not None else self._records()
        return self.progress(records, description)

    # Thresholds.

    def _place_edges(self, count: int) -> dict[str, np.ndarray]:
        """Edges of the sketches, from images spread evenly over all."""
        pilots = np.unique(np.linspace(0, count - 1, min(count, PILOT_IMAGES)).round())
        pilots = pilots.astype(int)
        records = self._kept
        if records is None:
            records = self._records(list(pilots))
        sample = {
            name: jax.jit(functools.partial(edges.sample, geometry=geometry))
            for name, geometry in getattr(self, "_geometry", {}).items()
        }
        samples = {name: [] for name in self.settings.layers}
        for record in records:
            picked = np.isin(record.index, pilots) & record.valid
            if not picked.any():
                continue
            for name, maps in record.features.items():
                values = sample[name](
                    keys.canonical(jnp.asarray(np.asarray(maps)[picked])),
                    zero=np.int32(0),
                )
                samples[name].append(np.asarray(values).reshape(-1, values.shape[-1]))
        return {
            name: edges.place_edges(
                np.concatenate(found)
                if found
                else np.zeros((1, self._units[name]), np.float32),
                self.settings.quantile,
            )
            for name, found in samples.items()
        }

    def _sketch(self, placed) -> dict[str, sketch.Sketch]:
        geometry = self._geometry

        def update(state, batch, constants):
            cuts, zero = constants
            return {
                name: sketch.update(
                    state[name],
                    keys.canonical(maps),
                    batch["valid"],
                    cuts[name],
                    geometry[name],
                    zero,
                )
                for name, maps in batch["features"].items()
            }

        found = self._pass(
            "sketch",
            update,
            {name: sketch.empty(units) for name, units in self._units.items()},
            ({name: keys.cuts(places) for name, places in placed.items()}, self._zero),
            _each(sketch.merge),
        )
        for name, state in found.items():
            if state.invalid.any():
                unit = int(np.argmax(state.invalid))
                raise UserError(
                    f"layer '{name}', unit {unit}: an activation is NaN or infinite; "
                    "check the weights, the preprocessing and dtype"
                )
        return found

    def _thresholds(self, sketches, placed, pixels) -> dict[str, np.ndarray]:
        quantile, geometry = self.settings.quantile, self._geometry
        allowed = sketch.allowance(pixels, quantile)
        brackets = {
            name: jax.tree.map(
                np.array, sketch.certify(state, placed[name], pixels, quantile).bracket
            )
            for name, state in sketches.items()
        }

        def update(state, batch, constants):
            arguments, zero = constants
            return {
                name: sweep.update(
                    state[name],
                    keys.canonical(batch["features"][name]),
                    batch["valid"],
                    arguments[name],
                    geometry[name],
                    zero,
                )
                for name in state
            }

        for number in range(1, MAX_SWEEPS + 1):
            # Only layers, and units, whose thresholds are not yet known.
            picked = {
                name: _some_units(bracket.high - bracket.low > 1)
                for name, bracket in brackets.items()
                if (bracket.high - bracket.low > 1).any()
            }
            if not picked:
                break
            open_ = {
                name: type(brackets[name])(*(ends[units] for ends in brackets[name]))
                for name, units in picked.items()
            }
            counts = self._pass(
                f"sweep {number}",
                update,
                {name: sweep.empty(len(units)) for name, units in picked.items()},
                ({n: sweep.as_arguments(open_[n]) for n in open_}, self._zero),
                _each(np.add),
                picked=picked,
            )
            for name, units in picked.items():
                narrowed, wrong = sweep.narrow(open_[name], counts[name], allowed)
                state = sketches[name]
                whole = sweep.widest(state.low[units], state.high[units], pixels)
                for ends, some, every in zip(
                    brackets[name], narrowed, whole, strict=True
                ):
                    ends[units] = np.where(wrong, every, some)
        if any((b.high - b.low > 1).any() for b in brackets.values()):
            raise RuntimeError(f"thresholds not exact after {MAX_SWEEPS} sweeps")
        return {name: bracket.high for name, bracket in brackets.items()}

    # Intersections.

    def _intersections(self, thresholds) -> dict[str, iou.Counts]:
        geometry = self._geometry

        def update(state, batch, constants):
            cuts, column_of, category, zero = constants
            labels = column_of[batch["labels"].astype(jnp.int32)]
            return {
                name: iou.update(
                    state[name],
                    keys.canonical(maps),
                    batch["valid"],
                    labels,
                    batch["annotated"],
                    cuts[name],
                    category,
                    geometry[name],
                    zero,
                )
                for name, maps in batch["features"].items()
            }

        return self._pass(
            "intersections",
            update,
            {
                name: iou.empty(len(self._columns), len(self._categories), units)
                for name, units in self._units.items()
            },
            (
                {name: keys.cuts(high) for name, high in thresholds.items()},
                self._column_of,
                self._category,
                self._zero,
            ),
            _each(lambda a, b: jax.tree.map(np.add, a, b)),
            labels=True,
        )

    def _pass(
        self, description, update, empty, constants, merge, labels=False, picked=None
    ):
        """One pass over all features; device counters are emptied in time.

        Args:
          labels: hand the label maps to `update`, too.
          picked: {layer: its units that are wanted}; by default all.
        """
        counters = self.counters
        step = counters.spmd(update)
        constants = counters.replicate(constants)
        state, total, used = counters.states(empty), None, 0
        for record in self._replay(description):
            features = record.features
            if picked is not None:
                features = {
                    name: features[name]
                    if len(units) == self._units[name]
                    else np.take(features[name], units, axis=-1)
                    for name, units in picked.items()
                }
            batch = {"features": features, "valid": record.valid}
            if labels:
                batch |= {"labels": record.labels, "annotated": record.annotated}
            batch = _divisible(batch, len(counters))
            here = len(batch["valid"]) // len(counters) * self._mask_pixels
            if used + here > COUNTER_LIMIT:
                total = _merged(state, merge, total)
                state, used = counters.states(empty), 0
            state = step(state, counters.scatter(batch), constants)
            used += here
        return _merged(state, merge, total)


def _some_units(wanted: np.ndarray) -> np.ndarray:
    """The wanted units and some others: as many as there are, or a power of two.

    So that later sweeps, for few units, cost little, and few shapes are compiled.
    """
    units = len(wanted)
    size = max(64, 1 << int(wanted.sum() - 1).bit_length())
    if size > units // 2:
        return np.arange(units)
    first = np.argsort(~wanted, kind="stable")[:size]
    return np.sort(first)


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


def _each(merge):
    """`merge` for every layer."""
    return lambda first, second: {n: merge(first[n], second[n]) for n in first}


def _merged(state, merge, total=None):
    """The devices' states and what was drained before as one, in 64 bits."""
    state = jax.tree.map(lambda array: np.asarray(array).astype(np.int64), state)
    devices = len(jax.tree.leaves(state)[0])
    parts = [jax.tree.map(lambda array, d=d: array[d], state) for d in range(devices)]
    return functools.reduce(merge, parts if total is None else [total, *parts])


class _Stopwatch:
    def __init__(self, seconds, stage):
        self._seconds, self._stage = seconds, stage

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = round(spent, 3)
