"""Provides labelled images in training batches, read ahead while devices compute.

Photographs of several sizes are at the top left of a common canvas, in an order that
(seed, epoch) determines. Any batch of an epoch can be the first, so an interrupted
training run reads exactly the remaining batches. In a multi-process run, each process
reads the same slice of every batch, in process order. `data.loader` carries a small
integer array beside each image, which here holds its size and class.
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
    """A training batch; every row is a valid image."""

    pixels: UInt8[np.ndarray, "batch height width 3"]  # at the canvas's top left
    sizes: Int[np.ndarray, "batch 2"]  # height and width of each image
    labels: Int[np.ndarray, " batch"]
    replaced: tuple[tuple[str, str], ...]  # name and reason of unreadable images


def canvas_shape(images: Labelled, image_size: int, canvas: int) -> tuple[int, int]:
    """Returns height and width of the training canvas.

    Larger photographs are reduced to fit, the one step that the original lacks: it
    crops from all pixels. For 224, the canvas of 512 holds ImageNet's usual 500x375
    unchanged.

    Args:
      images: labelled images; their stored size, if they have one, is the canvas.
      image_size: side of the network's images.
      canvas: side of a square canvas; 0 is 16/7 of `image_size`.
    """
    if images.stored is not None:
        return images.stored
    side = canvas or -(-image_size * 16 // 7)
    return side, side


def epoch_order(
    count: int, batch_size: int, seed: int, epoch: int
) -> Int[np.ndarray, " image"]:
    """Returns image indices in the order of an epoch of full batches."""
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
    """Yields an epoch's full batches, or shards of them, from number `start` on.

    Images that do not fill the last batch are left out; they vary by epoch. An
    unreadable image is replaced by the first readable one of the batch, or of the
    process's shard of it.

    Args:
      images: images to train on.
      batch_size: images per global batch, which `processes` share evenly.
      shape: shape of the canvas.
      seed: determines the order, together with `epoch`.
      epoch: number of the epoch, from 0.
      start: number of batches to skip.
      workers: number of decoding processes; 0 = threads.
      strict: whether to stop at an unreadable image.
      processes: processes of the run; this one reads its shard.

    Raises:
      UserError: no image of a batch can be read, or with `strict` the first unreadable
        image; or see `Labelled.read`.
    """
    order = epoch_order(len(images.names), batch_size, seed, epoch)
    size = batch_size // processes.count
    mine, _ = share(order, size, processes.index, processes.count)
    view = _Canvas(images, mine, shape)
    for batch in loader.batches(
        view, size, workers=workers, strict=strict, start=start
    ):
        assert batch.labels is not None  # of a view with annotations
        numbers = batch.labels[:, 0, 0]
        replaced = tuple((view.names[i], reason) for i, reason in batch.skipped)
        if not batch.valid.any():
            one = UnreadableImage(*replaced[0])
            raise UserError(f"no image of a batch can be read, such as {one}")
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
