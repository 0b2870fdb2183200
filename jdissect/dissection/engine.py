"""Runs a dissection's two passes over the images.

    images -> network -> features -> sketch -> sweeps -> thresholds T_k     first pass
                            +-> masks (a > T_k) x label maps -> counts      second pass

Every pass is a loop over batches around one per-device step that never communicates;
the integers are summed at its end, in 64 bits on the host. Features are kept between
the passes if there is room, so that the network runs once per image; otherwise every
pass runs it again.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jdissect.base.concepts import (
    Concepts,
    categories,
    category_of_columns,
    column_table,
    columns,
)
from jdissect.base.errors import UserError
from jdissect.base.progress import SILENT, ImageBars, Silent
from jdissect.dissection import kernels, passes, thresholds, top_activations
from jdissect.dissection.features import Features, Read, Shapes
from jdissect.dissection.first_pass import NAME, TopImages
from jdissect.dissection.resume import Journal
from jdissect.dissection.unit_views import UnitViews
from jdissect.ops import edge_codes, float_keys, iou, sketch, topk
from jdissect.ops.edges import EDGES
from jdissect.results import group_counts, layer_result
from jdissect.results.group_counts import GroupedCounts
from jdissect.runtime.devices import Devices, in_32_bits

# Counters of intersections on a device, of four bytes each. 3,840 units (a ResNet-50's
# four stages), 1,823 concepts and 32 blocks take 2.2e8.
MOST_COUNTERS = 2**28


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of a dissection.

    Attributes:
      layers: names of the feature maps.
      quantile: maximum share of pixels above T_k, in (0, 1).
      topk: number of top images per unit.
      keep: where features stay between the passes: 'none', 'device', 'memory' or
        'disk'.
      folder: folder for features if `keep` is 'disk'.
      unit_parts: number of devices of `counters` over which units are sharded.
      kernels: form of the counting kernels, one of `kernels.NAMES`; '' for the devices'
        own.
      views: what the units of the layers are; by default their own.
    """

    layers: tuple[str, ...]
    quantile: float = 0.01
    topk: int = 5
    keep: str = "memory"
    folder: Path | None = None
    unit_parts: int = 1
    kernels: str = ""
    views: UnitViews = UnitViews()


class NoneRead(UserError):
    """No image could be read; the journal's notes say which failed and why."""


class Dissection:
    """A network, its layers and a vocabulary, ready to run over images.

    Args:
      apply: (params, pixels) -> {layer: [image, height, width, unit]}, pure.
      params: a pytree of arrays.
      concepts: vocabulary, (name, category) by number.
      settings: options of the dissection.
      devices: devices that run the network.
      counters: devices that count activations; by default the same. Their number never
        changes a result.
      progress: shows the progress of every pass and of the work between them.
      journal: saves intermediate results, and knows the run's processes.
      shapes: shapes of the layers' own maps and of label maps; by default those of the
        first batch.

    Attributes:
      seconds: {stage: duration}.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], dict[str, jax.Array]],
        params: Any,
        concepts: Concepts,
        settings: Settings,
        devices: Devices,
        counters: Devices | None = None,
        progress: ImageBars | Silent = SILENT,
        journal: Journal | None = None,
        shapes: Shapes | None = None,
    ):
        self._shapes = shapes
        self._journal = journal or Journal()
        self.settings, self.devices, self.progress = settings, devices, progress
        self.counters = counters or devices
        self.seconds: dict[str, float] = {}
        self._columns = columns(concepts)
        if not len(self._columns):
            raise UserError("the vocabulary names no concept (number 0 is never one)")
        self._concepts = concepts
        self._categories = categories(concepts)
        self._category = category_of_columns(concepts)
        self._column_of = column_table(concepts)
        self._apply, self._params = apply, params

    @in_32_bits
    def run(
        self,
        read: Read,
        count: int | None,
        blocks: Int[np.ndarray, " image"] | None = None,
    ) -> dict[str, layer_result.Result]:
        """Dissects all layers.

        Args:
          read: reads the images.
          count: number of images; None if it is known only after reading (then
            features must be kept).
          blocks: int32, block of each image, for error bars; by default derived from
            the image's number.

        Raises:
          UserError: an activation is not finite.
          NoneRead: there is no valid image.
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
            settings.folder,
            self._shapes,
            settings.views,
        )
        processes = self._journal.processes
        counting = passes.Passes(
            features,
            self.counters,
            self.progress,
            self._journal,
            settings.unit_parts,
            len(self._categories),
        )
        counted_by = kernels.of(
            self.counters, settings.kernels, settings.keep == "device"
        )
        with self._timed("first pass"):
            first = passes.count(
                NAME,
                TopImages(
                    features,
                    self.devices,
                    settings.topk,
                    self._journal,
                    len(self._categories),
                ),
                features,
                self._journal,
                self.progress,
            )
        seen = int(first["seen"])
        if not seen:
            raise NoneRead("none of the images could be read")
        if count is None:
            count = int(first["last"]) + 1
        tops = {n: topk.result(first["tops"][n], seen) for n in settings.layers}
        with self._timed("top images"):
            images = {layer: image for layer, (_, image) in tops.items()}
            top_map = self._journal.memo(
                "top maps",
                {
                    n: np.zeros(s)
                    for n, s in top_activations.grids(features, images).items()
                },
                lambda: top_activations.collect(features, processes, images),
            )
        with self._timed("sketch"):
            edges = self._journal.memo(
                "edges",
                {n: np.zeros((EDGES, units)) for n, units in features.units.items()},
                lambda: thresholds.place_edges(features, processes, quantile, count),
            )
            coded, placed = {}, {}
            for name, keys_of_edges in edges.items():
                coded[name], placed[name] = edge_codes.of_edges(keys_of_edges)
            sketches = thresholds.sketch_all(counting, counted_by, coded, placed)
        pixels = seen * features.mask_pixels
        with self._timed("sweeps"):
            exact = thresholds.exact(
                counting, counted_by, sketches, placed, pixels, quantile
            )
        with self._timed("intersections"):
            entries = len(self._columns) * sum(features.units.values())
            groups = group_counts.Groups.choose(count, entries, blocks)
            counts = self._intersections(counting, counted_by, exact, groups)
        found = {}
        for layer in settings.layers:
            overlap, by_block, by_image = counts.pop(layer)
            histogram = sketch.histogram(sketches[layer], placed[layer], pixels)
            names, of_category = layer_result.column_names(
                self._concepts, self._columns
            )
            found[layer] = layer_result.Result(
                thresholds=float_keys.from_keys_host(exact[layer]),
                **overlap._asdict(),
                concepts=names,
                categories=of_category,
                top_value=tops[layer][0],
                top_image=tops[layer][1],
                histogram_counts=histogram[0],
                histogram_edges=histogram[1],
                images=seen,
                quantile=quantile,
                layer=layer,
                mask_shape=features.mask_shape,
                top_map=top_map.get(layer),
                blocks=by_block,
                by_image=by_image,
                tail=settings.views.tail,
                category_images={
                    category: int(images)
                    for category, images in zip(
                        self._categories, first["annotated"], strict=True
                    )
                },
            )
        return found

    @contextlib.contextmanager
    def _timed(self, stage):
        with self.progress.stage(stage), _Stopwatch(self.seconds, stage):
            yield

    def _intersections(
        self, counting, counted_by, exact, groups
    ) -> dict[str, tuple[iou.Overlap, GroupedCounts, GroupedCounts | None]]:
        """Returns {layer: (counts, by block, by image)}.

        In several passes, each for some of the units, if the counters of all would
        take too much memory.
        """
        tally, shared = counted_by.intersections(
            kernels.Vocabulary(
                groups=groups.count,
                categories=len(self._categories),
                column_of=self._column_of,
                category=self._category,
                group=lambda index: groups.of[index],
            )
        )
        cuts = {name: float_keys.cuts(high) for name, high in exact.items()}
        units = {name: len(high) for name, high in exact.items()}
        a_unit = groups.count * (len(self._columns) + 1)
        at_once = MOST_COUNTERS // a_unit * self.settings.unit_parts
        parts = _in_parts(units, max(at_once, 1))
        if len(parts) == 1:
            counts = counting.run("intersections", tally, cuts, shared)
            return {name: self._summed(one, groups) for name, one in counts.items()}
        found: dict[str, list[GroupedCounts]] = {name: [] for name in units}
        fields = [field.name for field in dataclasses.fields(GroupedCounts)]
        for number, picked in enumerate(parts, 1):
            name = f"intersections {number} of {len(parts)}"
            arrays = self._journal.condensed(name)
            if arrays is None:
                some = {layer: cuts[layer][of] for layer, of in picked.items()}
                counts = counting.run(name, tally, some, shared, picked)
                arrays = []
                for layer in picked:
                    packed = GroupedCounts.of_groups(counts.pop(layer), self._category)
                    arrays += [getattr(packed, field) for field in fields]
                self._journal.condense(name, arrays)
            for place, layer in enumerate(picked):
                one = arrays[place * len(fields) :][: len(fields)]
                found[layer].append(GroupedCounts(*one))
        return {name: self._joined(found.pop(name), groups) for name in units}

    def _summed(self, counts: iou.Counts, groups: group_counts.Groups):
        integers = [np.asarray(part) for part in counts]
        packed = groups.packed(integers, self._category)
        return iou.result(counts, self._category), *packed

    def _joined(self, parts: list[GroupedCounts], groups: group_counts.Groups):
        by_group = GroupedCounts.joined(parts)
        overlap = iou.of_totals(
            by_group.intersection(),
            by_group.concept.sum(axis=0),
            by_group.unit.sum(axis=0),
            self._category,
        )
        return overlap, *groups.by_block(by_group)


def _in_parts(
    units: Mapping[str, int], at_once: int
) -> list[dict[str, Int[np.ndarray, " unit"]]]:
    """Splits the units of all layers into parts of nearly equal numbers.

    Args:
      units: {layer: its number of units}.
      at_once: maximum number of units of a part.

    Returns:
      for each part {layer: units}.
    """
    total = sum(units.values())
    count = max(-(-total // at_once), 1)
    size = -(-total // count)
    parts: list[dict[str, Int[np.ndarray, " unit"]]] = []
    for start in range(0, max(total, 1), size or 1):
        part, first = {}, 0
        for layer, number in units.items():
            low, high = max(start - first, 0), min(start + size - first, number)
            if low < high:
                part[layer] = np.arange(low, high)
            first += number
        parts.append(part)
    return parts


class _Stopwatch:
    def __init__(self, seconds, stage):
        self._seconds, self._stage = seconds, stage

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = round(spent, 3)
