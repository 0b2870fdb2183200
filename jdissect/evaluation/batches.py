"""Provides labelled images of one size in batches, for evaluation."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from jdissect.data import loader
from jdissect.data.source import (
    Annotations,
    Example,
    Subset,
    share,
)
from jdissect.datasets.labelled import Labelled
from jdissect.runtime.processes import ALONE, Processes


class EvaluationBatch(NamedTuple):
    """A batch for evaluation; rows that are not valid are padding or unreadable."""

    pixels: UInt8[np.ndarray, "batch height width 3"]
    labels: Int[np.ndarray, " batch"]
    valid: np.ndarray
    skipped: tuple[tuple[str, str], ...]  # name and reason of unreadable images


def evaluation_batches(
    images: Labelled,
    batch_size: int,
    image_size: int,
    *,
    workers: int = 0,
    strict: bool = False,
    processes: Processes = ALONE,
) -> Iterator[EvaluationBatch]:
    """Yields every image once: resized to 8/7 and center-cropped, or as stored.

    The shorter side becomes 8/7 of `image_size`. In a multi-process run, each process
    yields its `batch_size` of the images of every step.

    Raises:
      UserError: see `training_batches`.
    """
    every = range(len(images.names))
    mine, _ = share(every, batch_size, processes.index, processes.count)
    view = Subset(_Central(images, image_size), mine)
    for batch in loader.batches(view, batch_size, workers=workers, strict=strict):
        assert batch.labels is not None  # of a view with annotations
        yield EvaluationBatch(
            batch.pixels,
            batch.labels[:, 0, 0, 0],
            batch.valid,
            tuple((view.names[i], reason) for i, reason in batch.skipped),
        )


def packed(*values: int) -> np.ndarray:
    return np.array([[values]], np.int32)


@dataclasses.dataclass(frozen=True)
class _Central:
    """The center of every image, as a source; its label is the class."""

    images: Labelled
    image_size: int
    annotations: Annotations = Annotations((), maps=1, grid=(1, 1))

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.names

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.images.stored or (self.image_size, self.image_size)

    def read(self, index: int) -> Example:
        image, label = self.images.read(index)
        if self.images.stored is None:
            image = central_crop(image, self.image_size)
        return Example(np.asarray(image), packed(label), np.zeros(0, bool))


def central_crop(image: Image.Image, side: int) -> Image.Image:
    """Resizes the shorter side to 8/7 of `side` (256 for 224), then crops the center.

    Like torchvision's Resize and CenterCrop: PIL's antialiased bilinear resize; the
    longer side is truncated to whole pixels.
    """
    short = round(side * 8 / 7)
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return image.crop((left, top, left + side, top + side))
