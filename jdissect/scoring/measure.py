"""Measures the scores of a layer that need activations, in two readings of the images.

The first reading counts histograms and finds each unit's range. The second sums the
products of activations and masks in fixed point, for which the range must be known, and
counts anew what the first could not bound closely enough. More readings follow only for
units whose bounds are still too far apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdissect.base.errors import UserError
from jdissect.scoring import ranking
from jdissect.scoring.measured import Measured
from jdissect.scoring.moments import Moments, Sums
from jdissect.scoring.ranking import Bounds, Histograms
from jdissect.scoring.samples import Batch

MOST_READINGS = 8


class Measuring:
    """The state of one layer between readings of the images.

    while layer.unfinished:
        for batch in every_batch():
            layer.add(batch)
        layer.finish_reading()
    layer.measured()

    Args:
      result: the `layer_result.Result` of the layer.

    Attributes:
      readings: number of readings so far.
    """

    def __init__(self, result: Any):
        self._result = result
        self.readings = 0
        names = list(dict.fromkeys(result.categories))
        self._categories = len(names)
        self._category = np.array([names.index(c) for c in result.categories], np.int64)
        quotient = result.intersection / np.maximum(result.union, 1)
        if result.blocks is None:
            present = np.ones(len(result.concepts), bool)
        else:
            present = result.blocks.concept.any(axis=0)
        self._pairs = ranking.choose(quotient, present, result.best_concept)
        edges = [
            ranking.first_edges(*unit)
            for unit in zip(
                result.histogram_counts,
                result.histogram_edges,
                result.thresholds,
                strict=True,
            )
        ]
        self._histograms: Histograms | None = self._empty(edges)
        units = len(result.thresholds)
        self._low = np.zeros(units, np.float32)
        self._high = np.zeros(units, np.float32)
        self._moments: Moments | None = None
        self._sums: Sums | None = None
        self._bounds: dict[int, Bounds] = {}

    @property
    def unfinished(self) -> bool:
        """Whether the images must be read (again)."""
        return self.readings < 2 or (
            self._histograms is not None and self.readings < MOST_READINGS
        )

    def add(self, batch: Batch) -> None:
        """Adds images; in any order and grouping the result is the same."""
        if self.readings == 0:
            self._low = np.minimum(self._low, batch.features.min(axis=(0, 1, 2)))
            self._high = np.maximum(self._high, batch.features.max(axis=(0, 1, 2)))
        if self._histograms is not None:
            self._histograms.add(batch)
        if self.readings == 1:
            if self._sums is None or self._moments is None:
                self._moments, self._sums = self._begin(batch)
            self._moments.add(self._sums, batch)

    def _begin(self, batch: Batch) -> tuple[Moments, Sums]:
        moments = Moments(
            grid=batch.features.shape[1:3],
            mask_shape=batch.columns.shape[2:],
            category=self._category,
            categories=self._categories,
            largest=np.maximum(-self._low, self._high),
            images=self._result.images,
        )
        return moments, moments.empty()

    def finish_reading(self) -> None:
        """Ends a reading of all images.

        Raises:
          UserError: pixels were counted that are not those of the result.
        """
        self.readings += 1
        if self._histograms is None:
            return
        found: Histograms = self._histograms
        edges: Sequence[Any] = found.edges
        if self.readings == 1:
            self._check(found)
        wide: dict[int, list[Bounds]] = {}
        for pair, bounds in found.bounds():
            self._bounds[pair] = bounds
            wide.setdefault(int(self._pairs.unit[pair]), []).append(bounds)
        wide = {
            unit: all_
            for unit, all_ in wide.items()
            if max(bounds.width for bounds in all_) > ranking.AIM
        }
        self._histograms = None
        if wide:
            pairs = sum(map(len, wide.values()))
            again: list[Any] = [None] * len(edges)
            for unit, all_ in wide.items():
                again[unit] = ranking.refined(
                    edges[unit],
                    [bounds.contribution for bounds in all_],
                    float(self._low[unit]),
                    float(self._high[unit]),
                    max(ranking.REFINED_ENTRIES // pairs, ranking.BINS),
                )
            self._histograms = self._empty(again)

    def _check(self, found: Histograms) -> None:
        """Compares the pixels where units fire with the stored intersections."""
        wrong = set()
        for pair, (unit, column) in enumerate(zip(*self._pairs, strict=True)):
            common = found.fired(pair, self._result.thresholds[unit])
            if common != self._result.intersection[unit, column]:
                wrong.add(int(unit))
        if wrong:
            raise UserError(
                f"layer '{self._result.layer}' cannot be scored: {len(wrong)} of "
                f"{len(self._result.thresholds)} units overlap their concepts on other "
                "pixels than in the run; if another version or machine made it, "
                "dissect anew with --overwrite"
            )

    def _empty(self, edges) -> Histograms:
        return Histograms.empty(edges, self._pairs, self._category, self._categories)

    def measured(self, result_hash: str = "") -> Measured:
        """Returns the scores, after the last reading."""
        pairs = [self._bounds[pair] for pair in range(len(self._pairs.unit))]

        def both(name):
            return np.array([getattr(each, name) for each in pairs]).reshape(-1, 2)

        assert self._moments is not None and self._sums is not None
        return Measured(
            pearson=self._moments.pearson(self._sums).astype(np.float32),
            cosine=self._moments.cosine(self._sums).astype(np.float32),
            error=self._moments.error(self._sums),
            unit=self._pairs.unit.astype(np.int32),
            column=self._pairs.column.astype(np.int32),
            auroc=both("auroc"),
            average_precision=both("ap"),
            best_iou=both("iou"),
            best_threshold=np.array([b.threshold for b in pairs], np.float32),
            result_hash=result_hash,
        )
