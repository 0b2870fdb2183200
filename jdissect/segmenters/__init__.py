"""Segments images into label maps: `open_segmenter` for a config's segmenter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jdissect.base.concepts import Concepts
from jdissect.base.errors import UserError
from jdissect.data.loader import Batch
from jdissect.data.source import Source
from jdissect.models.upernet import STRIDE
from jdissect.runtime.devices import Devices
from jdissect.segmenters import choices
from jdissect.segmenters.annotations import open_annotations
from jdissect.segmenters.colornames import open_colornames
from jdissect.segmenters.combined import CombinedSegmenter
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.upernet import open_upernet

UPerNet = choices.UPerNet
ColorNames = choices.ColorNames
Annotations = choices.Annotations
NAMES = ("annotations", "upernet", "colornames")


class Segmenter(Protocol):
    """Provides the label maps of a source's images.

    Attributes:
      concepts: (name, category) by number.
      map_names: what each label map shows; () if that is not fixed.
      mask_shape: (height, width) of the label maps.
    """

    @property
    def concepts(self) -> Concepts: ...

    @property
    def map_names(self) -> tuple[str, ...]: ...

    @property
    def mask_shape(self) -> tuple[int, int]: ...

    def label_maps(self, batch: Batch) -> np.ndarray:
        """Returns int[image, map, height, width]: concept numbers, 0 for no label."""
        ...

    def annotated(self, batch: Batch) -> np.ndarray | None:
        """Returns bool[image, category]; None: every image counts for all."""
        ...

    def identity(self, cache_dir: Path | None) -> Any:
        """Returns JSON that changes whenever a label map could."""
        ...


def smallest_image(name: str) -> int:
    """Returns the side in pixels of the smallest image that a segmenter can label."""
    return STRIDE if name == "upernet" else 1


def open_segmenter(
    config: Any,
    source: Source,
    hashes: Sequence[str],
    devices: Devices,
    cache_dir: Path | None,
) -> Segmenter:
    """Opens the segmenter of `config.segmenter` for a source's images.

    Args:
      config: the whole config.
      source: source of the images.
      hashes: content hash of every image.
      devices: devices that run networks.
      cache_dir: folder for cached label maps of networks; None caches nothing.

    Raises:
      UserError: the segmenter is unknown, or cannot label these images.
    """
    name = config.segmenter.name
    if name == "annotations":
        return open_annotations(source, config.mask_size)
    if name == "colornames":
        return open_colornames(config.mask_size)
    if name == "upernet":
        folder = cache_dir and cache_dir / "labels"
        cache = LabelCache(folder, int(config.cache.max_gb * 1e9))
        if config.segmenter.color != "colornames":
            return open_upernet(config, source.image_shape, hashes, devices, cache)
        config = config.copy_and_resolve_references()
        config.segmenter.color = ""
        upernet = open_upernet(config, source.image_shape, hashes, devices, cache)
        size = config.mask_size or upernet.mask_shape[0]
        return CombinedSegmenter(upernet, open_colornames(size))
    raise UserError(f"config.segmenter.name is {name!r}; use {', '.join(NAMES)}")
