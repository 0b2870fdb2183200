"""Images and label maps that are drawn, not read, as a dissection takes them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jdissect.dissection.features import Images, Read
from jdissect.ops.upsample import upsample


def reader(
    count: int, size: int, batch: Callable[[np.ndarray], tuple[Any, Any]]
) -> Read:
    """Reads `count` images, `size` a step.

    Args:
      count: how many there are.
      size: images of a batch; the last is padded.
      batch: from int32[size] numbers of images, -1 where padded, to pixels and label
        maps as `Images` holds them.
    """

    def read(indices=None, start=0, stop=None) -> Iterable[Images]:
        if indices is None:
            indices = range(start, count if stop is None else stop)
        for first in range(0, len(indices), size):
            some = np.asarray(indices[first : first + size], np.int32)
            index = np.pad(some, (0, size - len(some)), constant_values=-1)
            pixels, labels = batch(index)
            yield Images(index=index, valid=index >= 0, pixels=pixels, labels=labels)

    return read


def photographs(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """uint8[image, side, side, RGB]: smooth at the scale of `side`, and noise."""
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.float32)
    grown = np.asarray(upsample(coarse, (side, side)))
    return (grown + rng.normal(0, 20, grown.shape)).clip(0, 255).astype(np.uint8)


def label_maps(
    rng: np.random.Generator, count: int, side: int, concepts: int
) -> np.ndarray:
    """int32[image, 6, side, side]: blocks of so many concepts an image, of 1,800."""
    cells = 7
    found = np.zeros((count, 6, side, side), np.int32)
    for image in range(count):
        here = rng.choice(np.arange(1, 1800), concepts, replace=False)
        coarse = rng.choice(here, (6, cells, cells))
        grown = coarse.repeat(-(-side // cells), 1).repeat(-(-side // cells), 2)
        found[image] = grown[:, :side, :side]
    return found
