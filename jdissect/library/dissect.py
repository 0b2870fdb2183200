"""Provides `jdissect.dissect`: any network, images and label maps, to a result."""

import dataclasses
import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdissect.base.errors import UserError
from jdissect.base.progress import Progress, is_watched
from jdissect.datasets.folder import open_folder
from jdissect.dissection import api
from jdissect.dissection.batches_given import shown
from jdissect.dissection.labels_given import Segmented
from jdissect.library import networks
from jdissect.library.pictures import Keeper
from jdissect.library.result import Result, with_pictures
from jdissect.models.upernet import STRIDE
from jdissect.runtime import machine
from jdissect.runtime.devices import Devices
from jdissect.segmenters import choices, open_segmenter, smallest_image

_CACHE_GB = 20.0  # limit for label maps, as the command line's default


def dissect(
    apply: Any,
    params: Any = None,
    images: Any = None,
    label_maps: Any = None,
    *,
    layers: str | Sequence[str],
    concepts: Sequence[tuple[str, str]] | None = None,
    segmenter: Any = None,
    names: Sequence[str] = (),
    annotated: Any = None,
    ignore: int | None = None,
    quantile: float = 0.01,
    batch_size: int = 32,
    tail: str = "upper",
    units: Any = None,
    progress: bool | None = None,
) -> Result | dict[str, Result]:
    """Finds out which concepts the units of a network detect (Bau et al. 2017).

    A network from a folder, with label maps by a segmenter, or any function of
    (params, images), with label maps of your own:

        dissect("weights/mine", images, segmenter="colornames", layers="layer4")
        dissect(apply, params, images, label_maps, concepts=concepts, layers="maps")

    Args:
      apply: the network. The folder of a converted or trained one, or what `load_model`
        returns: it takes pixels and normalizes them itself. A Flax NNX module in
        evaluation mode. Or a function: `apply(params, images)` returns a dict of
        feature maps [batch, height, width, unit]; nested dicts (names are joined by
        dots), one-tuples, a dict beside logits and, for one layer, a bare array are
        accepted too. It is compiled, called with `batch_size` images (the last batch is
        padded with zeros), and always computed in 32 bits.
      params: a pytree of arrays, for a function. Left out for other networks: images
        is their second argument, and label_maps their third.
      images: a folder of image files; an array, image first; a list of images; a data
        set; or an iterable of images or batches, read once. Arrays of NumPy, JAX,
        PyTorch, Pillow or others. Of pairs, the first is the image; of dicts, 'image'.
        A function gets them as they are, and all must be of one size. A network from a
        folder takes integers 0 to 255 or floats 0 to 1, channels first or last; PIL
        images that are not of its own size are resized, and their center is taken.
      label_maps: integers [image, map, height, width], or a function from a batch of
        images to them. A pixel may have a number in each map; 0 means no label. Masks
        are compared on this grid. If it is left out, and there is no segmenter, images
        must be pairs (images, masks), or dicts with a 'mask'.
      layers: one or several layers; an image needs one forward pass for all of them.
      concepts: `concepts[number]` is (name, category). Number 0 and numbers named '-'
        are not concepts; a concept is the union of all numbers that share its pair. A
        segmenter has its own.
      segmenter: labels the images, in place of label_maps and concepts: 'colornames',
        `segmenters.UPerNet(FOLDER)`, or another of `segmenters`. Images must then be
        pixels, as for a network from a folder.
      names: names of the images, to be shown; those of a folder are known.
      annotated: bool [image, category], whether an image counts for a category; columns
        are the categories in order of first appearance in `concepts[1:]`. By default
        all images count.
      ignore: a number in label maps that means no label, as 0 does, such as 255.
      quantile: a unit fires on at most this share of all pixels, in (0, 1).
      batch_size: images per device and step.
      tail: where a unit fires: 'upper', above T_k; 'lower', below it; or 'both', which
        makes two units of each, named `12+` and `12-` (see `Result.unit_names`).
      units: units that are not the layer's channels (see `docs/units.md`): directions,
        an array [features, units]; a dict of `encoder`, `activation` and more; or a
        safetensors file of these. For several layers a dict {layer: one of these}.
      progress: whether to show how far it is; by default on a terminal and in a
        notebook.

    Returns:
      The result of the layer if `layers` is a string, else {layer: result}. It shows
      pictures of the images where they are pictures.

    Raises:
      UserError (a ValueError): invalid shapes, numbers, names or counts, in any batch,
        or an activation that is not finite.

    Warns:
      UserWarning: `concepts[0]` is not '-'; feature maps look channels first, or depend
        on the other images of a batch; too few pixels for any unit to fire; an image of
        a folder cannot be read.
    """
    if networks.has_parameters(apply):
        if params is not None:
            if images is not None and label_maps is not None:
                raise UserError(
                    "the network has its own parameters; give dissect(network, images, "
                    "...) without params"
                )
            images, label_maps = params, label_maps if images is None else images
        params = None
    if images is None:
        raise UserError("images is missing")
    _check_ignore(ignore, segmenter)
    network = networks.given(apply, params, layers)
    source = _source(images)
    keeper = Keeper()
    silent = not (is_watched() if progress is None else progress)
    with Progress(silent=silent) as shows:
        devices = Devices()
        segmented = None
        label_maps, segmenter = _labels_by(label_maps, segmenter)
        if segmenter is not None:
            if concepts is not None or annotated is not None:
                raise UserError("a segmenter has its own concepts; leave out concepts")
            with shows.stage("opening the segmenter"):
                segmented, concepts = _segmented(segmenter, source, devices, shows)
        elif concepts is None:
            raise UserError(
                "concepts is missing; name the numbers of label_maps, or give a "
                "segmenter, such as segmenter='colornames'"
            )
        if source is not None:
            images, names = source, source.names
        found = api.dissect(
            network.apply,
            network.params,
            images,
            label_maps,
            concepts=concepts,
            layers=layers,
            annotated=annotated,
            ignore=ignore,
            quantile=quantile,
            batch_size=batch_size,
            tail=tail,
            units=units,
            names=names,
            segmented=segmented,
            geometry=network.geometry,
            devices=devices,
            progress=None if silent else shows,
            watch=keeper.add,
        )
    tops = [result.top_image for result in found.values()]
    pictures = keeper.kept(tops, names or _numbered(tops))
    results = {
        layer: with_pictures(result.replace(model=network.name), pictures)
        for layer, result in found.items()
    }
    return results[layers] if isinstance(layers, str) else results


def _check_ignore(ignore: Any, segmenter: Any) -> None:
    if ignore is None:
        return
    if isinstance(ignore, bool) or not isinstance(ignore, numbers.Integral):
        raise UserError(f"ignore is {ignore!r:.40}; it must be a number in label maps")
    if isinstance(segmenter, str | choices.Choice):
        raise UserError(
            "ignore is a number in label maps; leave it out with a segmenter"
        )


def _source(images: Any) -> Any:
    """Returns the source of a folder, or one that was given; None for other images."""
    if api.is_source(images):
        return images
    if not isinstance(images, str | os.PathLike):
        return None
    try:
        return open_folder(os.fspath(images))
    except UserError as error:
        text = str(error).removeprefix("config.data.path: ")
        raise UserError(f"images: {text}") from None


def _labels_by(label_maps: Any, segmenter: Any) -> tuple[Any, Any]:
    """Returns (label maps, segmenter as a choice), of which at least one is None."""
    if segmenter is None or isinstance(segmenter, choices.Choice):
        chosen = segmenter
    elif isinstance(segmenter, str):
        if segmenter == choices.UPerNet.name:
            raise UserError(
                "segmenter 'upernet' needs its weights; give "
                "jdissect.segmenters.UPerNet(FOLDER)"
            )
        if segmenter not in choices.BY_NAME:
            raise UserError(
                f"segmenter is {segmenter!r:.40}; use {', '.join(choices.BY_NAME)}, or "
                "jdissect.segmenters.UPerNet(FOLDER)"
            )
        chosen = choices.BY_NAME[segmenter]()
    elif label_maps is None:  # label maps, or a function that makes them
        return segmenter, None
    else:
        raise UserError(
            f"segmenter is {shown(segmenter)}; it must be a name, or one of "
            "jdissect.segmenters"
        )
    if chosen is not None and label_maps is not None:
        raise UserError("give either label_maps or a segmenter")
    return label_maps, chosen


def _segmented(choice: Any, source: Any, devices: Devices, progress: Progress):
    """Returns (what labels batches, its concepts).

    Raises:
      UserError: the segmenter cannot be opened, or has no labels for these images.
    """
    cache = machine.cache_dir("")
    smallest = smallest_image(choice.name)
    hashes: Sequence[str] = _Pixels()
    if source is not None:
        if hasattr(source, "smallest"):
            source = dataclasses.replace(source, smallest=smallest)
        if choice.name == choices.UPerNet.name:
            with progress.stage("hashing images"):
                hashes = source.content_hashes(cache)
    of_any_size: Any = _Any()
    opened = open_segmenter(
        choices.as_config(choice, _CACHE_GB),
        of_any_size if source is None else source,
        hashes,
        devices,
        cache,
    )
    return Segmented(opened, smallest, progress), opened.concepts


class _Any:
    """Images of any size, without annotations: each batch is checked instead."""

    image_shape = (STRIDE, STRIDE)
    annotations = None


class _Pixels(Sequence):
    """Content hashes of images that are known by their pixels alone."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> str:
        return ""


def _numbered(tops: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Returns names of images that have none, up to the last one of `tops`."""
    count = 1 + max(int(top.max(initial=-1)) for top in tops)
    return tuple(f"image {index}" for index in range(count))
