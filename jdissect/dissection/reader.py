"""Makes batches of one size from a caller's images and label maps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jdissect.data import loader
from jdissect.data.source import Source, Subset
from jdissect.dissection.batches_given import Given
from jdissect.dissection.features import Images
from jdissect.dissection.labels_given import Labels, Segmented

Watch = Callable[[np.ndarray, np.ndarray], None]


class Reader:
    """Reads the images that a caller gave; see `features.Read`.

    Args:
      images: the images, or a source of them.
      labels: their label maps.
      size: images per batch.
      convert: makes the network's input of a batch, whose name is the second argument.
      watch: is given (index, images) of every batch that is read.
    """

    def __init__(
        self,
        images: Given | Source,
        labels: Labels | Segmented,
        size: int,
        convert: Callable[[Any, str], Any] | None = None,
        watch: Watch | None = None,
    ):
        self._images, self._labels, self._size = images, labels, size
        self._convert, self._watch = convert, watch

    def read(
        self,
        indices: Sequence[int] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[Images]:
        """Yields all batches, or those of `indices`."""
        if indices is None and (start or stop is not None):
            raise ValueError("images are read from the first to the last")
        for batch in self._batches(indices):
            labels, annotated = self._labels_of(batch, indices is not None)
            if self._watch is not None:
                there = batch.valid
                self._watch(batch.index[there], batch.pixels[there])
            pixels = batch.pixels
            if self._convert is not None:
                pixels = self._convert(pixels, f"the batch from image {batch.index[0]}")
            yield Images(
                index=self._padded(batch.index, -1),
                valid=self._padded(batch.valid),
                pixels=self._padded(pixels),
                labels=labels if callable(labels) else self._padded(labels),
                annotated=None if annotated is None else self._padded(annotated),
                skipped=batch.skipped,
            )

    def look(self, indices: Sequence[int], watch: Watch) -> None:
        """Gives a function the (index, images) of some images, batch by batch."""
        for batch in self._batches(indices):
            watch(batch.index[batch.valid], batch.pixels[batch.valid])

    def _batches(self, indices) -> Iterable[loader.Batch]:
        if not isinstance(self._images, Given):
            yield from self._of_source(indices)
            return
        if indices is not None:
            for start in range(0, len(indices), self._size):
                index = np.asarray(indices[start : start + self._size], np.int32)
                yield _batch(index, self._images.some(index), None)
            return
        first = 0
        for pixels, masks in self._images.pairs(self._size):
            index = np.arange(first, first + len(pixels), dtype=np.int32)
            yield _batch(index, pixels, masks)
            first += len(pixels)
        if isinstance(self._labels, Labels):
            self._labels.check_end(first)

    def _of_source(self, indices) -> Iterator[loader.Batch]:
        source: Any = self._images
        order = None if indices is None else np.asarray(indices, np.int64)
        if order is not None:
            source = Subset(source, order)
        for batch in loader.batches(source, self._size):
            if order is not None:
                here = batch.index >= 0
                batch.index[here] = order[batch.index[here]]
            yield batch

    def _labels_of(self, batch: loader.Batch, apart: bool):
        if isinstance(self._labels, Segmented):
            padded = loader.Batch(
                index=self._padded(batch.index, -1),
                valid=self._padded(batch.valid),
                pixels=self._padded(batch.pixels),
                labels=batch.labels,
                annotated=batch.annotated,
                skipped=(),
            )
            return self._labels.of(padded)
        if not apart:
            return self._labels.of(int(batch.index[0]), batch.pixels, batch.labels)
        parts = [
            self._labels.of(int(i), batch.pixels[place : place + 1])
            for place, i in enumerate(batch.index)
        ]
        labels = np.concatenate([part[0] for part in parts])
        if parts[0][1] is None:
            return labels, None
        return labels, np.concatenate([part[1] for part in parts])

    def _padded(self, array: np.ndarray, value: int = 0) -> np.ndarray:
        widths = [(0, self._size - len(array))] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths, constant_values=value)


def _batch(index, pixels, masks) -> loader.Batch:
    return loader.Batch(index, np.ones(len(index), bool), pixels, masks, None, ())
