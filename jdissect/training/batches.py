"""Labelled images in batches to train on, read ahead while the devices compute.

Photographs of several sizes lie in the top left of a common canvas, in an order that
(seed, epoch) decides. Any batch of an epoch can be the first, so that a training that
was interrupted reads exactly the batches that remain. Of many processes each reads the
same slice of every batch, the first the first. Beside an image `data.loader` carries a
small array of integers, which here holds its size and class.
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
    UnreadableImage,
    share,
)
from jdissect.datasets.labelled import Labelled
from jdissect.evaluation.batches import packed
from jdissect.runtime.processes import ALONE, Processes


class TrainingBatch(NamedTuple):
    """Images to train on; every row is one."""

    pixels: UInt8[np.ndarray, "batch height width 3"]  # in the canvas's top left
    sizes: Int[np.ndarray, "batch 2"]  # height and width of each
    labels: Int[np.ndarray, " batch"]
    replaced: tuple[tuple[str, str], ...]  # name and reason of images not readable


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
) -> Int[np.ndarray, " image"]:
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
        numbers = packed(image.height, image.width, label)
        return Example(pixels, numbers, np.zeros(0, bool))
