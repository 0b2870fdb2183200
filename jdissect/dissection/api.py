"""Provides `jdissect.dissect`, which dissects any JAX function that returns maps."""

import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.base.concepts import NOTHING, Concepts, categories
from jdissect.base.errors import UserError
from jdissect.dissection import unit_views
from jdissect.dissection.batches_given import Given, as_array, parameters, shown
from jdissect.dissection.compiled import Network
from jdissect.dissection.engine import Dissection, Settings
from jdissect.dissection.features import Images, Shapes
from jdissect.results.layer_result import Result
from jdissect.runtime import machine
from jdissect.runtime.devices import Devices, in_32_bits

Apply = Callable[[Any, Any], Mapping[str, Float[Array, "batch height width unit"]]]


@in_32_bits
def dissect(
    apply: Apply,
    params: Any,
    images: Any,
    label_maps: Int[AnyArray, "image map mask_height mask_width"]
    | Callable[[Any], Any],
    *,
    concepts: Concepts,
    layers: str | Sequence[str],
    annotated: Bool[AnyArray, "image category"] | None = None,
    quantile: float = 0.01,
    batch_size: int = 32,
    tail: str = "upper",
    units: Any = None,
) -> Result | dict[str, Result]:
    """Finds out which concepts the units of a network detect (Bau et al. 2017).

    Args:
      apply: `apply(params, images)` returns a dict of feature maps, channels last.
        Nested dicts (names are joined by dots), one-tuples, a dict beside logits and,
        for one layer, a bare array are accepted too. It is compiled, called with
        `batch_size` images (the last batch is padded with zeros), and always computed
        in 32 bits, even in JAX's 64-bit mode.
      params: a pytree of arrays.
      images: an array, image first, a list of images of one size, or an iterable of
        batches of any sizes, read once; arrays of NumPy, JAX, PyTorch, Pillow or
        others. Of a pair (images, labels) the first is used.
      label_maps: integers, or a function from a batch of images to them. A pixel may
        have a number in each map; 0 means no label. Masks are compared on this grid.
      concepts: `concepts[number]` is (name, category). Number 0 and numbers named '-'
        are not concepts; a concept is the union of all numbers that share its pair.
      layers: one or several names in `apply`'s dict; an image needs one forward pass
        for all of them.
      annotated: whether an image counts for a category; columns are the categories in
        order of first appearance in `concepts[1:]`. By default all images count.
      quantile: a unit fires on at most this share of all pixels, in (0, 1).
      batch_size: images per device and step.
      tail: where a unit fires: 'upper', above T_k; 'lower', below it; or 'both', which
        makes two units of each, named `12+` and `12-` (see `Result.unit_names`).
      units: units that are not the layer's channels (see `docs/units.md`): directions,
        an array [features, units]; a dict of `encoder`, `activation` and more; or a
        safetensors file of these. For several layers a dict {layer: one of these}.

    Returns:
      The result of the layer if `layers` is a string, else {layer: result}.

    Raises:
      UserError (a ValueError): invalid shapes, numbers, names or counts, in any batch,
        or an activation that is not finite.

    Warns:
      UserWarning: `concepts[0]` is not '-'; feature maps look channels first, or depend
        on the other images of a batch; too few pixels for any unit to fire.
    """
    single = isinstance(layers, str)
    layers = _check_layers(layers)
    if not isinstance(quantile, numbers.Real) or not 0 < quantile < 1:
        raise UserError(f"quantile is {quantile}; it must be between 0 and 1")
    if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    if not callable(apply):
        raise UserError(f"apply is {shown(apply)}; it must be a function")
    concepts = _check_concepts(concepts)
    views = unit_views.given(units, tail, layers)
    params = parameters(params)
    network = Network(apply, layers, params)
    images = Given(images, network.makes_maps)
    labels = _Labels(label_maps, annotated, concepts, images.count)
    devices = Devices()
    reader = _Reader(images, labels, int(batch_size) * len(devices))
    keep, shapes = "memory", None
    if images.count:
        one = images.example
        share = jax.ShapeDtypeStruct((batch_size, *one.shape[1:]), one.dtype)
        maps = network.maps(share)
        if labels.mask_shape is not None:
            shapes = Shapes.of(maps, labels.mask_shape)
        size = sum(each.size * each.dtype.itemsize for each in maps.values())
        keep = machine.keep_features(
            "auto",
            -(-size // batch_size),
            images.count,
            None,
            free_on_devices=machine.free_on(devices.devices),
        )
    found = Dissection(
        network,
        params,
        concepts,
        Settings(layers, float(quantile), keep=keep, views=views),
        devices,
        shapes=shapes,
    ).run(reader.read, images.count)
    first = found[layers[0]]
    if not first.can_fire:
        height, width = first.mask_shape
        warnings.warn(
            f"no unit can fire: quantile {quantile} of {first.images} label maps of "
            f"{height}x{width} pixels is less than one pixel. Give more images, finer "
            "label maps or a larger quantile",
            stacklevel=3,
        )
    return first if single else found


def _check_layers(layers: str | Sequence[str]) -> tuple[str, ...]:
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if not layers:
        raise UserError("layers is empty; name one layer or more")
    for place, name in enumerate(layers):
        if not isinstance(name, str):
            raise UserError(f"layers has {shown(name)}; a layer is named by a string")
        if name in layers[:place]:
            raise UserError(f"layers has '{name}' twice")
    return layers


def _check_concepts(concepts: Concepts) -> list[tuple[str, str]]:
    checked = []
    for concept in concepts:
        pair = () if isinstance(concept, str) else tuple(concept)
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise UserError(
                f"concepts must be pairs (name, category), not {concept!r:.40}"
            )
        checked.append(pair)
    if checked and checked[0][0] != NOTHING:
        warnings.warn(
            f"concepts[0] is {checked[0]!r:.60}, but number 0 means no label: start "
            "with ('-', '-'), and number the label maps from 1",
            stacklevel=4,
        )
    return checked


class _Labels:
    """Label maps and annotations of the images, batch by batch."""

    def __init__(self, label_maps, annotated, concepts, count):
        self._function = label_maps if callable(label_maps) else None
        self._maps: np.ndarray | None = None
        self._concepts = concepts
        self._annotated: np.ndarray | None = None
        self._shape: tuple | None = None  # (maps, height, width) per image
        if self._function is None:
            self._maps = as_array(label_maps, "label_maps")
            self._check(self._maps, "label_maps")
        if annotated is not None:
            self._annotated = self._checked_annotated(as_array(annotated, "annotated"))
        for name, array in self._arrays():
            if count is not None and len(array) != count:
                raise UserError(
                    f"{name} holds {len(array)} images, not {count} as images does"
                )

    @property
    def mask_shape(self) -> tuple[int, int] | None:
        """(height, width) of the label maps; None: no batch of them was seen."""
        return None if self._shape is None else self._shape[1:]

    def of(self, first: int, batch: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (label maps, annotated or None) of the batch from image `first`."""
        last = first + len(batch)
        for name, array in self._arrays():
            if len(array) < last:
                raise UserError(
                    f"{name} ends before the images: it holds {len(array)}, but images "
                    f"gave {last} so far"
                )
        if self._function is None:
            assert self._maps is not None
            maps = self._maps[first:last]
        else:
            what = f"label_maps of the batch from image {first}"
            maps = as_array(self._function(batch), what)
            self._check(maps, what)
            if len(maps) != len(batch):
                raise UserError(f"{what} holds {len(maps)} images, not {len(batch)}")
        annotated = self._annotated
        return maps, None if annotated is None else annotated[first:last]

    def check_end(self, count: int) -> None:
        """Checks that nothing is left over after the last image."""
        for name, array in self._arrays():
            if len(array) != count:
                raise UserError(
                    f"images ends before {name}: it gave {count} images, but {name} "
                    f"holds {len(array)}"
                )

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        both = (("label_maps", self._maps), ("annotated", self._annotated))
        return [(name, array) for name, array in both if array is not None]

    def _checked_annotated(self, annotated):
        width = len(categories(self._concepts))
        if annotated.ndim != 2 or annotated.shape[1] != width:
            raise UserError(
                f"annotated has shape {annotated.shape}; it must be [images, "
                f"categories] = (..., {width})"
            )
        if not ((annotated == 0) | (annotated == 1)).all():
            raise UserError("annotated has numbers other than 0 and 1")
        return annotated.astype(bool)

    def _check(self, maps, what):
        if maps.ndim != 4 or not np.issubdtype(maps.dtype, np.integer):
            raise UserError(
                f"{what} is {shown(maps)}; it must be integers "
                "[images, maps, height, width]"
            )
        if 0 in maps.shape[1:]:
            raise UserError(f"{what} is {shown(maps)}: it is empty")
        self._shape = self._shape or maps.shape[1:]
        if maps.shape[1:] != self._shape:
            raise UserError(
                f"{what} is [maps, height, width] = {list(maps.shape[1:])}, but those "
                f"before are {list(self._shape)}; all must be on one grid"
            )
        if maps.size and not 0 <= maps.min() <= maps.max() < len(self._concepts):
            raise UserError(
                f"{what} has numbers from {maps.min()} to {maps.max()}; concepts "
                f"names 0 to {len(self._concepts) - 1}"
            )


class _Reader:
    """Makes batches of one size from the caller's images."""

    def __init__(self, images: Given, labels: _Labels, size: int):
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
        if start or stop is not None:  # only saved runs start elsewhere
            raise ValueError("images are read from the first to the last")
        first = 0
        for pixels in self._images.batches(self._size):
            labels, annotated = self._labels.of(first, pixels)
            index = np.arange(first, first + len(pixels), dtype=np.int32)
            yield self._padded(index, pixels, labels, annotated)
            first += len(pixels)
        self._labels.check_end(first)

    def _some(self, indices):
        for start in range(0, len(indices), self._size):
            index = np.asarray(indices[start : start + self._size], np.int32)
            pixels = self._images.some(index)
            parts = [
                self._labels.of(int(i), pixels[place : place + 1])
                for place, i in enumerate(index)
            ]
            labels = np.concatenate([part[0] for part in parts])
            annotated = None
            if parts[0][1] is not None:
                annotated = np.concatenate([part[1] for part in parts])
            yield self._padded(index, pixels, labels, annotated)

    def _padded(self, index, pixels, labels, annotated):
        missing = self._size - len(index)

        def pad(array, value=0):
            widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
            return np.pad(array, widths, constant_values=value)

        return Images(
            index=pad(index, -1),
            valid=pad(np.ones(len(index), bool)),
            pixels=pad(pixels),
            labels=pad(labels),
            annotated=None if annotated is None else pad(annotated),
        )
