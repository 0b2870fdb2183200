"""Labelled images as batches, read ahead while the devices compute.

For training, photographs of several sizes lie in the top left of a common canvas, in an
order that (seed, epoch) decides; any batch of an epoch can be the first, so that a
training that was interrupted reads exactly the batches that remain. For evaluation all
images have one size. Of many processes each reads the same slice of every batch, the
first the first. `data.loader` reads both; beside an image it carries a small array
of integers, which here holds its size and class.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data import loader
from jdissect.data.source import (
    Annotations,
    Example,
    Names,
    Subset,
    UnreadableImage,
    share,
)
from jdissect.datasets.labelled import Labelled
from jdissect.runtime.processes import ALONE, Processes


class TrainingBatch(NamedTuple):
    """Images to train on; every row is one."""

    pixels: UInt8[np.ndarray, "batch height width 3"]  # in the canvas's top left
    sizes: Int[np.ndarray, "batch 2"]  # height and width of each
    labels: Int[np.ndarray, "batch"]
    replaced: tuple[tuple[str, str], ...]  # name and reason of images not readable


class EvaluationBatch(NamedTuple):
    """Images to evaluate on; rows that are not valid are padding or not readable."""

    pixels: UInt8[np.ndarray, "batch height width 3"]
    labels: Int[np.ndarray, "batch"]
    valid: np.ndarray
    skipped: tuple[tuple[str, str], ...]  # name and reason of images not readable


def canvas_shape(images: Labelled, image_size: int, canvas: int) -> tuple[int, int]:
    """Height and width of the training's canvas.

    Larger photographs are reduced until they fit, the one step that the original does
    not take: it crops from all pixels. At 224 the canvas of 512 holds ImageNet's usual
    500x375 as it is.

    Args:
      images: whose stored size, if they have one, is the canvas.
      image_size: side of the network's images.
      canvas: side of a square; 0 is 16/7 of `image_size`.
    """
    if images.stored is not None:
        return images.stored
    side = canvas or -(-image_size * 16 // 7)
    return side, side


def epoch_order(
    count: int, batch_size: int, seed: int, epoch: int
) -> Int[np.ndarray, "image"]:
    """Numbers of `count` images, in the order of an epoch of full batches."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[: count // batch_size * batch_size]


def training_batches(
    images: Labelled,
    batch_size: int,
    shape: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    strict: bool = False,
    processes: Processes = ALONE,
) -> Iterator[TrainingBatch]:
    """An epoch's batches from number `start` on, all of full size, or shares of them.

    The images that do not fill the last batch are left out; which ones differs from
    epoch to epoch. In the place of an image that cannot be read stands the first of
    the batch, or of the process's share of it, that can.

    Args:
      images: to train on.
      batch_size: images of a whole batch, which `processes` share evenly.
      shape: of the canvas.
      seed: decides the order, with `epoch`.
      epoch: from 0.
      start: leave out this many batches.
      workers: processes that decode; 0 = threads.
      strict: stop at an image that cannot be read.
      processes: of which this one reads its share.

    Raises:
      UserError: nothing in a batch can be read, or with `strict` the first image that
        cannot; or as `Labelled.read`.
    """
    order = epoch_order(len(images.names), batch_size, seed, epoch)
    size = batch_size // processes.count
    mine, _ = share(order, size, processes.index, processes.count)
    view = _Canvas(images, mine, shape)
    for batch in loader.batches(
        view, size, workers=workers, strict=strict, start=start
    ):
        numbers = batch.labels[:, 0, 0]
        replaced = tuple((view.names[i], reason) for i, reason in batch.skipped)
        if not batch.valid.any():
            first = UnreadableImage(*replaced[0])
            raise UserError(f"no image of a batch can be read, such as {first}")
        first = int(batch.valid.argmax())
        batch.pixels[~batch.valid] = batch.pixels[first]
        numbers[~batch.valid] = numbers[first]
        yield TrainingBatch(batch.pixels, numbers[:, :2], numbers[:, 2], replaced)


def evaluation_batches(
    images: Labelled,
    batch_size: int,
    image_size: int,
    *,
    workers: int = 0,
    strict: bool = False,
    processes: Processes = ALONE,
) -> Iterator[EvaluationBatch]:
    """Every image once: shorter side to 8/7 of `image_size` and centre crop, or stored.

    Of many processes each yields `batch_size` of every so many images for all of them.

    Raises:
      UserError: as `training_batches`.
    """
    every = range(len(images.names))
    mine, _ = share(every, batch_size, processes.index, processes.count)
    view = Subset(_Central(images, image_size), mine)
    for batch in loader.batches(view, batch_size, workers=workers, strict=strict):
        yield EvaluationBatch(
            batch.pixels,
            batch.labels[:, 0, 0, 0],
            batch.valid,
            tuple((view.names[i], reason) for i, reason in batch.skipped),
        )


def _numbers(*values: int) -> np.ndarray:
    return np.array([[values]], np.int32)


@dataclasses.dataclass(frozen=True)
class _Canvas:
    """Images in an order, on a canvas, as a source; labels are height, width, class."""

    images: Labelled
    order: np.ndarray
    image_shape: tuple[int, int]
    annotations: Annotations = Annotations((), maps=1, grid=(1, 3))

    @property
    def names(self) -> Names:
        return Names(self.images.names, self.order)

    def read(self, index: int) -> Example:
        image, label = self.images.read(int(self.order[index]))
        height, width = self.image_shape
        scale = min(height / image.height, width / image.width)
        if scale < 1:
            size = (round(image.width * scale), round(image.height * scale))
            size = (max(1, size[0]), max(1, size[1]))
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[: image.height, : image.width] = np.asarray(image)
        numbers = _numbers(image.height, image.width, label)
        return Example(pixels, numbers, np.zeros(0, bool))


@dataclasses.dataclass(frozen=True)
class _Central:
    """The middle of every image, as a source; its label is the class."""

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
        return Example(np.asarray(image), _numbers(label), np.zeros(0, bool))


def central_crop(image: Image.Image, side: int) -> Image.Image:
    """Shorter side to 8/7 of `side` (256 at 224), then the central square.

    As torchvision's Resize and CenterCrop: PIL's bilinear resize, which antialiases;
    the longer side is truncated to whole pixels.
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
