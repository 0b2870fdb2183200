"""Checks a caller's label maps, batch by batch, or asks a segmenter for them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.data.loader import Batch
from jdissect.dissection.batches_given import as_array, shown
from jdissect.dissection.photographs import as_pixels


class Labels:
    """Label maps and annotations of the images, batch by batch.

    Args:
      label_maps: integers [image, map, height, width]; a function from a batch of
        images to them; or None: they come with the images.
      annotated: bool[image, category], or None.
      concepts: (name, category) by number.
      count: number of images; None if it is not known.
      ignore: number that means no label, as 0 does; None: only 0.

    Raises:
      UserError: an array is invalid, or not of `count` images.
    """

    def __init__(
        self,
        label_maps: Any,
        annotated: Any,
        concepts: Any,
        count: Any,
        ignore: int | None = None,
    ):
        self._ignore = ignore
        self._function = label_maps if callable(label_maps) else None
        self._maps: np.ndarray | None = None
        self._concepts = concepts
        self._annotated: np.ndarray | None = None
        self._shape: tuple | None = None  # (maps, height, width) per image
        if self._function is None and label_maps is not None:
            given = as_array(label_maps, "label_maps")
            self._maps = self._checked(given, "label_maps")
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

    def of(
        self, first: int, batch: Any, masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (label maps, annotated or None) of the batch from image `first`.

        Args:
          first: number of the first image.
          batch: the images.
          masks: label maps that came with them.
        """
        last = first + len(batch)
        for name, array in self._arrays():
            if len(array) < last:
                raise UserError(
                    f"{name} ends before the images: it holds {len(array)}, but images "
                    f"gave {last} so far"
                )
        what = f"label_maps of the batch from image {first}"
        if self._maps is not None:
            maps = self._maps[first:last]
        elif self._function is None:
            if masks is None:
                raise UserError(
                    "label_maps is missing, and images gives no masks; give "
                    "label_maps, a segmenter, or pairs (images, masks)"
                )
            maps = self._checked(masks, what)
        else:
            maps = self._checked(as_array(self._function(batch), what), what)
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

    def _checked(self, maps, what):
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
        if self._ignore is not None:
            maps = np.where(maps == self._ignore, maps.dtype.type(0), maps)
        if maps.size and not 0 <= maps.min() <= maps.max() < len(self._concepts):
            raise UserError(
                f"{what} has numbers from {maps.min()} to {maps.max()}; concepts "
                f"names 0 to {len(self._concepts) - 1}"
            )
        return maps


class Segmented:
    """Label maps that a segmenter makes.

    Args:
      segmenter: a `segmenters.Segmenter`.
      smallest: side in pixels of the smallest image that it can label.
      progress: shows that label maps are made.
    """

    def __init__(self, segmenter: Any, smallest: int, progress: Progress):
        self._segmenter, self._smallest = segmenter, smallest
        self._progress, self._begun = progress, False

    @property
    def mask_shape(self) -> tuple[int, int]:
        """(height, width) of the label maps."""
        return self._segmenter.mask_shape

    def of(self, batch: Batch) -> tuple[Callable[[], np.ndarray], Any]:
        """Returns (function that makes the label maps, annotated or None) of a batch.

        Raises:
          UserError: the images are no pixels, or too small.
        """
        pixels = as_pixels(batch.pixels, f"the batch from image {batch.index[0]}")
        if min(pixels.shape[1:3]) < self._smallest:
            height, width = pixels.shape[1:3]
            raise UserError(
                f"the images have {height}x{width} pixels; the segmenter needs at "
                f"least {self._smallest}x{self._smallest}"
            )
        batch = dataclasses.replace(batch, pixels=pixels)

        def label_maps() -> np.ndarray:
            # The first call may compile a network.
            name = "label maps" if self._begun else "label maps, compiling"
            with self._progress.stage(name):
                found = self._segmenter.label_maps(batch)
            self._begun = True
            return found

        return label_maps, self._segmenter.annotated(batch)
