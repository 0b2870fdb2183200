"""Dissects a function that returns feature maps, for `jdissect.dissect`."""

import functools
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jdissect.base.arrays import AnyArray
from jdissect.base.concepts import NOTHING, Concepts
from jdissect.base.errors import UserError
from jdissect.base.progress import SILENT, ImageBars, Progress
from jdissect.data.source import none_read, skipped_line
from jdissect.dissection import unit_views
from jdissect.dissection.batches_given import Given, parameters, shown
from jdissect.dissection.compiled import Network
from jdissect.dissection.engine import Dissection, NoneRead, Settings
from jdissect.dissection.features import Shapes
from jdissect.dissection.labels_given import Labels, Segmented
from jdissect.dissection.photographs import Geometry, as_pixels
from jdissect.dissection.reader import Reader, Watch
from jdissect.dissection.resume import Journal
from jdissect.results import group_counts
from jdissect.results.layer_result import Result
from jdissect.runtime import machine
from jdissect.runtime.devices import Devices, in_32_bits

Apply = Callable[[Any, Any], Mapping[str, Float[Array, "batch height width unit"]]]


@in_32_bits
def dissect(
    apply: Apply,
    params: Any,
    images: Any,
    label_maps: Integer[AnyArray, "image map mask_height mask_width"]
    | Callable[[Any], Any]
    | None,
    *,
    concepts: Concepts,
    layers: str | Sequence[str],
    annotated: Bool[AnyArray, "image category"] | None = None,
    ignore: int | None = None,
    quantile: float = 0.01,
    batch_size: int = 32,
    tail: str = "upper",
    units: Any = None,
    names: Sequence[str] = (),
    segmented: Segmented | None = None,
    geometry: Geometry | None = None,
    devices: Devices | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> dict[str, Result]:
    """Dissects a function of (params, images).

    The arguments that are not listed are those of `library.dissect.dissect`.

    Args:
      names: names of the images; () for none.
      segmented: makes the label maps, in place of `label_maps`.
      geometry: the network takes 8-bit pixels, and PIL images are resized so.
      devices: devices that run networks; by default those of this process.
      progress: shows what is under way.
      watch: is given (index, images) of the units' top images; of images that can be
        read only once, of all.

    Returns:
      {layer: result}.

    Raises:
      UserError: as `library.dissect.dissect`.
    """
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
    devices = devices or Devices()
    source = None if not is_source(images) else images
    if source is None:
        images = Given(
            images,
            _is_never_a_batch if geometry is not None else network.makes_maps,
            with_masks=label_maps is None and segmented is None,
            geometry=geometry,
        )
    count = len(source.names) if source is not None else images.count
    _check_names(names, count)
    labels = segmented or Labels(label_maps, annotated, concepts, count, ignore)
    reader = Reader(
        images,
        labels,
        int(batch_size) * len(devices),
        None if geometry is None else as_pixels,
        functools.partial(_watch, names, None if count else watch),
    )
    keep, shapes = "memory", None
    if count:
        share = _share(images, source, batch_size, geometry)
        maps = network.maps(share)
        if labels.mask_shape is not None:
            shapes = Shapes.of(maps, labels.mask_shape)
        size = sum(each.size * each.dtype.itemsize for each in maps.values())
        keep = machine.keep_features(
            "auto",
            -(-size // batch_size),
            count,
            None,
            free_on_devices=machine.free_on(devices.devices),
        )
    journal = Journal()
    try:
        found = Dissection(
            network,
            params,
            concepts,
            Settings(layers, float(quantile), keep=keep, views=views),
            devices,
            progress=SILENT if progress is None else ImageBars(progress, count),
            journal=journal,
            shapes=shapes,
        ).run(reader.read, count, group_counts.blocks_of(names) if names else None)
    except NoneRead:
        raise none_read(_skipped(journal, source)) from None
    if skipped := _skipped(journal, source):
        warnings.warn(skipped_line(skipped, count or 0), stacklevel=4)
    if watch is not None and count:
        tops = [result.top_image for result in found.values()]
        reader.look(np.unique(np.concatenate(tops, axis=None)).tolist(), watch)
    first = found[layers[0]]
    if not first.can_fire:
        height, width = first.mask_shape
        warnings.warn(
            f"no unit can fire: quantile {quantile} of {first.images} label maps of "
            f"{height}x{width} pixels is less than one pixel. Give more images, finer "
            "label maps or a larger quantile",
            stacklevel=4,
        )
    return found


def is_source(images: Any) -> bool:
    """Returns whether images are a `data.source.Source`."""
    return all(hasattr(type(images), name) for name in ("read", "content_hashes"))


def _is_never_a_batch(array: jax.ShapeDtypeStruct) -> bool:
    del array
    return False


def _share(images, source, batch_size: int, geometry) -> jax.ShapeDtypeStruct:
    """Returns shape and type of one device's batch."""
    if source is not None:
        shape, dtype = (1, *source.image_shape, 3), np.dtype(np.uint8)
    else:
        one = images.example
        one = one if geometry is None else as_pixels(one, "images[0]")
        shape, dtype = one.shape, one.dtype
    return jax.ShapeDtypeStruct((batch_size, *shape[1:]), dtype)


def _skipped(journal: Journal, source: Any) -> list[tuple[str, str]]:
    """Returns (name, reason) of every image that could not be read."""
    notes = journal.notes.get("skipped", {})
    found = sorted((int(index), why) for index, why in notes.items())
    return [(source.names[index], why) for index, why in found]


def _check_names(names: Sequence[str], count: int | None) -> None:
    if not all(isinstance(name, str) for name in names):
        raise UserError("names must be strings, one per image")
    if names and count is not None and len(names) != count:
        raise UserError(f"names holds {len(names)} names, not {count} as images does")


def _watch(names, watch: Watch | None, index: np.ndarray, images: np.ndarray) -> None:
    """Looks at a batch that was read."""
    last = int(index.max(initial=-1))
    if names and last >= len(names):
        raise UserError(
            f"names ends before the images: it holds {len(names)}, but images gave "
            f"{last + 1} so far"
        )
    if watch is not None:
        watch(index, images)


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
            stacklevel=5,
        )
    return checked
