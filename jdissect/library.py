"""`jdissect.dissect`: dissects any JAX function that returns feature maps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdissect import environment
from jdissect.concepts import Concepts, categories
from jdissect.dissection import Dissection, Settings
from jdissect.errors import UserError
from jdissect.features import Images
from jdissect.parallel import Devices
from jdissect.results import Result

Apply = Callable[[Any, Any], Mapping[str, Float[Array, "batch height width unit"]]]


def dissect(
    apply: Apply,
    params: Any,
    images: Any,
    label_maps: Int[Array, "image map mask_height mask_width"] | Callable[[Any], Any],
    *,
    concepts: Concepts,
    layers: str | Sequence[str],
    annotated: Bool[Array, "image category"] | None = None,
    quantile: float = 0.01,
    batch_size: int = 32,
) -> Result | dict[str, Result]:
    """Finds out which concepts the units of a network detect (Bau et al. 2017).

    Args:
      apply: `apply(params, images)` returns a dict of feature maps, channels last. It
        is compiled, and called with `batch_size` images (the last batch is padded with
        zeros).
      params: a pytree of arrays.
      images: an array, image first, or an iterable of such arrays (batches of any
        sizes), read once.
      label_maps: integers, or a function from a batch of images to them. A pixel may
        carry a number in every map; 0 is nothing. The masks are compared on this grid.
      concepts: `concepts[number]` is (name, category). Number 0 and numbers named '-'
        are no concepts.
      layers: a name in `apply`'s dict, or several, all from one forward pass an image.
      annotated: whether an image counts for a category; columns are the categories in
        order of first appearance in `concepts[1:]`. By default all do.
      quantile: a unit fires on at most this share of all pixels, in (0, 1).
      batch_size: images a device a step.

    Returns:
      The result of the layer if `layers` is a string, else {layer: result}.

    Raises:
      UserError (a ValueError): shapes, numbers or names that do not fit, or an
        activation that is not finite.
    """
    single = isinstance(layers, str)
    layers = (layers,) if single else tuple(layers)
    if not layers:
        raise UserError("layers is empty; name one layer or more")
    if not 0 < quantile < 1:
        raise UserError(f"quantile is {quantile}; it must be between 0 and 1")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    concepts = [tuple(concept) for concept in concepts]
    if any(len(concept) != 2 for concept in concepts):
        raise UserError("concepts must be pairs (name, category)")
    is_array = hasattr(images, "shape")
    count = len(images) if is_array else None
    labels = _Labels(label_maps, annotated, concepts, count)
    devices = Devices()
    reader = _Reader(images, labels, batch_size * len(devices))
    keep = "memory"
    if is_array and count:
        one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        maps = jax.eval_shape(apply, params, one)
        size = sum(
            maps[name].size * maps[name].dtype.itemsize
            for name in layers
            if name in maps
        )
        keep = environment.keep_features("auto", size, count, None)
    found = Dissection(
        apply, params, concepts, Settings(layers, quantile, keep=keep), devices
    ).run(reader.read, count)
    return found[layers[0]] if single else found


class _Labels:
    """Label maps and annotations of the images from `first` on."""

    def __init__(self, label_maps, annotated, concepts, count):
        self._function = label_maps if callable(label_maps) else None
        self._maps = None if self._function else np.asarray(label_maps)
        self._concepts = concepts
        self._annotated = None
        if self._maps is not None:
            self._check(self._maps, count)
        if annotated is not None:
            self._annotated = np.asarray(annotated, bool)
            width = len(categories(concepts))
            height = count if count is not None else len(self._annotated)
            if self._annotated.shape != (height, width):
                raise UserError(
                    f"annotated has shape {self._annotated.shape}; it must be "
                    f"[images, categories] = ({height}, {width})"
                )

    def of(self, first: int, batch: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """(label maps, annotated or None) of a batch that starts at image `first`."""
        last = first + len(batch)
        if self._function is not None:
            maps = np.asarray(self._function(batch))
            self._check(maps, len(batch))
        else:
            maps = self._maps[first:last]
        annotated = self._annotated
        if annotated is not None:
            annotated = annotated[first:last]
        for name, found in (("label_maps", maps), ("annotated", annotated)):
            if found is not None and len(found) != len(batch):
                raise UserError(
                    f"{name} ends before the images, after {first + len(found)}"
                )
        return maps, annotated

    def _check(self, maps, count):
        if maps.ndim != 4 or not np.issubdtype(maps.dtype, np.integer):
            raise UserError(
                f"label_maps is {maps.dtype}{list(maps.shape)}; it must be integers "
                "[images, maps, height, width]"
            )
        if count is not None and len(maps) != count:
            raise UserError(f"label_maps holds {len(maps)} images, not {count}")
        if maps.size and not 0 <= maps.min() <= maps.max() < len(self._concepts):
            raise UserError(
                f"label_maps has numbers from {maps.min()} to {maps.max()}; concepts "
                f"names 0 to {len(self._concepts) - 1}"
            )


class _Reader:
    """Batches of one size out of an array or of batches of any size."""

    def __init__(self, images, labels: _Labels, size: int):
        self._images, self._labels, self._size = images, labels, size

    def read(
        self,
        indices: Sequence[int] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[Images]:
        if indices is not None:
            yield from self._some(indices)
            return
        if start or stop is not None:  # only a run that is saved begins elsewhere
            raise ValueError("images are read from the first to the last")
        first = 0
        for pixels in self._batches():
            labels, annotated = self._labels.of(first, pixels)
            index = np.arange(first, first + len(pixels), dtype=np.int32)
            yield self._padded(index, pixels, labels, annotated)
            first += len(pixels)

    def _some(self, indices):
        for start in range(0, len(indices), self._size):
            index = np.asarray(indices[start : start + self._size], np.int32)
            parts = [self._labels.of(i, self._images[i : i + 1]) for i in index]
            labels = np.concatenate([part[0] for part in parts])
            annotated = None
            if parts[0][1] is not None:
                annotated = np.concatenate([part[1] for part in parts])
            yield self._padded(index, self._images[index], labels, annotated)

    def _batches(self):
        if hasattr(self._images, "shape"):
            for start in range(0, len(self._images), self._size):
                yield np.asarray(self._images[start : start + self._size])
            return
        rest = None
        for batch in self._images:
            batch = np.asarray(batch)
            rest = batch if rest is None else np.concatenate([rest, batch])
            while len(rest) >= self._size:
                yield rest[: self._size]
                rest = rest[self._size :]
        if rest is not None and len(rest):
            yield rest

    def _padded(self, index, pixels, labels, annotated):
        missing = self._size - len(index)

        def pad(array, value=0):
            widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
            return np.pad(array, widths, constant_values=value)

        return Images(
            index=pad(index, -1),
            valid=pad(np.ones(len(index), bool)),
            pixels=pad(np.asarray(pixels)),
            labels=pad(labels),
            annotated=None if annotated is None else pad(annotated),
        )
