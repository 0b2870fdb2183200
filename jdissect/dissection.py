"""The two passes of a dissection.

    images -> network -> features -> sketch -> sweeps -> thresholds T_k     first pass
                            +-> masks (a > T_k) x label maps -> counts      second pass

Every pass is a loop over batches around one per-device step that never communicates;
integers are added up at its end, in 64 bits on the host. Features are kept between
the passes where there is room, so that the network runs once an image; else every
pass runs it again.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdissect import passes, results, thresholds
from jdissect.concepts import Concepts, categories, columns
from jdissect.errors import UserError
from jdissect.features import Features, Read
from jdissect.ops import iou, keys, sketch, topk
from jdissect.parallel import Devices


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
        if not len(self._columns):
            raise UserError("the vocabulary names no concept (number 0 is never one)")
        self._concepts = concepts
        self._categories = categories(concepts)
        place = {name: i for i, name in enumerate(self._categories)}
        self._category = np.array(
            [place[concepts[number][1]] for number in self._columns], np.int32
        )
        # Concept number -> column + 1.
        self._column_of = np.zeros(len(concepts), np.int32)
        self._column_of[self._columns] = np.arange(1, len(self._columns) + 1)
        self._apply, self._params = apply, params

    def run(
        self,
        read: Read,
        count: int | None,
    ) -> dict[str, results.Result]:
        """Dissects all layers.

        Args:
          read: reads the images.
          count: how many images there are, None if only reading tells (then features
            must be kept).

        Raises:
          UserError: an activation that is not finite; no valid image.
        """
        settings = self.settings
        quantile = settings.quantile
        features = Features(
            self._apply,
            self._params,
            settings.layers,
            self.devices,
            read,
            settings.keep,
        )
        counting = passes.Passes(features, self.counters, self.progress)
        with self._timed("first pass"):
            tops, seen, last = self._first_pass(features)
            if not seen:
                raise UserError("none of the images could be read")
            if count is None:
                count = last + 1
        with self._timed("sketch"):
            placed = thresholds.place_edges(features, settings.layers, quantile, count)
            sketches = thresholds.sketch_all(counting, placed)
        pixels = seen * features.mask_pixels
        with self._timed("sweeps"):
            exact = thresholds.exact(counting, sketches, placed, pixels, quantile)
        with self._timed("intersections"):
            counts = self._intersections(counting, exact)
        found = {}
        for layer in settings.layers:
            intersection, union, fires = iou.result(counts[layer], self._category)
            histogram = sketch.histogram(sketches[layer], placed[layer], pixels)
            top_value, top_image = topk.result(tops[layer], seen)
            names, of_category = results.column_names(self._concepts, self._columns)
            found[layer] = results.Result(
                thresholds=keys.from_keys_host(exact[layer]),
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
                quantile=quantile,
                layer=layer,
            )
        return found

    def _timed(self, stage):
        return _Stopwatch(self.seconds, stage)

    def _first_pass(self, features):
        """Runs the network: (best images, number of valid images, last index)."""
        seen, last, state, step = 0, -1, None, None

        def update(state, batch, constants):
            del constants
            return {
                name: topk.update(
                    state[name], keys.canonical(maps), batch["index"], batch["valid"]
                )
                for name, maps in batch["features"].items()
            }

        for record in self.progress(features.first(), "network"):
            if step is None:
                step = self.devices.spmd(update)
                state = self.devices.states(
                    {
                        name: topk.empty(self.settings.topk, units)
                        for name, units in features.units.items()
                    }
                )
            seen += int(record.valid.sum())
            last = max(last, int(record.index.max()))
            batch = {
                "features": record.features,
                "index": record.index,
                "valid": record.valid,
            }
            state = step(state, self.devices.scatter(batch), None)
        best = passes.merged(state, passes.each(topk.merge)) if seen else None
        return best, seen, last

    def _intersections(self, counting, exact) -> dict[str, iou.Counts]:
        geometry = counting.features.geometry

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

        return counting.run(
            "intersections",
            update,
            {
                name: iou.empty(len(self._columns), len(self._categories), units)
                for name, units in counting.features.units.items()
            },
            (
                {name: keys.cuts(high) for name, high in exact.items()},
                self._column_of,
                self._category,
                np.int32(0),
            ),
            passes.each(lambda a, b: jax.tree.map(np.add, a, b)),
            categories=len(self._categories),
        )


class _Stopwatch:
    def __init__(self, seconds, stage):
        self._seconds, self._stage = seconds, stage

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = round(spent, 3)
