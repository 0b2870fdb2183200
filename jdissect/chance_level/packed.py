"""Packs masks and label maps of all images sparsely, 32 pixels in a word.

A unit fires on 1 % of the pixels, and a block of 4x8 pixels shows few concepts. So of
every image two lists are kept: the (block, unit) pairs with a pixel where the unit
fires, and the (block, concept) pairs with a pixel of the concept, each with its pixels
as the bits of a word, as in `ops.bit_masks`. An overlap is then a population count of
words of the same block.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Int, UInt32

from jdissect.base.errors import UserError
from jdissect.ops.bit_masks import BLOCK_COLUMNS, BLOCK_ROWS
from jdissect.runtime import resources

_SHARE = 0.4  # of the free memory that the lists may take; sorting needs as much again


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Masks and label maps of `images` images.

    Words of masks ascend by unit, then image and block; entries of label maps by row,
    image * blocks + block, then concept.

    Attributes:
      image, block, unit: int32[word], where a unit fires.
      bits: uint32[word], the pixels of the block where it does.
      start: int64[row + 1], first entry of each row.
      concept: int32[entry], a concept in that block.
      label: uint32[entry], its pixels.
      annotated: bool[image, category], whether an image counts for a category.
      images, blocks, units, concepts: their numbers.
    """

    image: Int[np.ndarray, " word"]
    block: Int[np.ndarray, " word"]
    unit: Int[np.ndarray, " word"]
    bits: UInt32[np.ndarray, " word"]
    start: Int[np.ndarray, " row_edge"]
    concept: Int[np.ndarray, " entry"]
    label: UInt32[np.ndarray, " entry"]
    annotated: Bool[np.ndarray, "image category"]
    images: int
    blocks: int
    units: int
    concepts: int

    def fires(self) -> scipy.sparse.csr_array:
        """Returns int64[image, unit], pixels where each unit fires, sparse."""
        count = np.bitwise_count(self.bits).astype(np.int64)
        shape = (self.images, self.units)
        return scipy.sparse.coo_array(
            (count, (self.image, self.unit)), shape=shape
        ).tocsr()

    def areas(self) -> Int[np.ndarray, " concept"]:
        """Returns the pixels of each concept over all images, int64."""
        count = np.bitwise_count(self.label)
        return np.bincount(self.concept, count, self.concepts).astype(np.int64)


def pack(images: Iterable[Any], units: int, concepts: int) -> Packed:
    """Packs images.

    Args:
      images: objects with `columns`, int[map, height, width], column + 1 of the concept
        at a pixel that counts, else 0; `annotated`, bool[category]; `unit` and `pixel`,
        int32[fired], the pairs of a unit and a pixel y * width + x where it fires. As
        `dissection.firing.OnImage`.
      units, concepts: their numbers.

    Raises:
      UserError: there are fewer than two images, or their masks do not fit into memory.
    """
    masks: list[tuple[np.ndarray, ...]] = []
    labels: list[tuple[np.ndarray, ...]] = []
    rows, annotated, blocks, size = [], [], 0, 0
    for number, image in enumerate(images):
        height, width = image.columns.shape[1:]
        across = -(-width // BLOCK_COLUMNS)
        blocks = -(-height // BLOCK_ROWS) * across
        pixel = np.arange(height * width, dtype=np.int32)
        y, x = pixel // width, pixel % width
        block = y // BLOCK_ROWS * across + x // BLOCK_COLUMNS
        bit = np.uint32(1) << (
            y % BLOCK_ROWS * BLOCK_COLUMNS + x % BLOCK_COLUMNS
        ).astype(np.uint32)
        key, word = _grouped(
            block[image.pixel].astype(np.int64) * units + image.unit, bit[image.pixel]
        )
        within, unit = np.divmod(key, units)
        here = np.full(len(unit), number, np.int32)
        masks.append((here, within.astype(np.int32), unit.astype(np.int32), word))
        column = image.columns.reshape(len(image.columns), -1)
        there, place = np.nonzero(column)
        key, word = _grouped(
            block[place].astype(np.int64) * concepts + column[there, place] - 1,
            bit[place],
        )
        within, concept = np.divmod(key, max(concepts, 1))
        labels.append((concept.astype(np.int32), word))
        rows.append(np.bincount(within, minlength=blocks))
        annotated.append(np.asarray(image.annotated, bool))
        size += sum(array.nbytes for array in (*masks[-1], *labels[-1], rows[-1]))
        _check_memory(size, number)
    if len(rows) < 2:
        raise UserError(
            f"{len(rows)} image{'s' * (len(rows) != 1)} cannot be permuted; chance "
            "needs two or more"
        )
    image_of, block_of, unit_of, bits = map(np.concatenate, zip(*masks, strict=True))
    masks.clear()
    order = np.argsort(unit_of, kind="stable")
    concept, label = map(np.concatenate, zip(*labels, strict=True))
    return Packed(
        image=image_of[order],
        block=block_of[order],
        unit=unit_of[order],
        bits=bits[order],
        start=np.concatenate([[0], np.cumsum(np.concatenate(rows))]),
        concept=concept,
        label=label,
        annotated=np.stack(annotated),
        images=len(rows),
        blocks=blocks,
        units=units,
        concepts=concepts,
    )


def _grouped(
    key: Int[np.ndarray, " pixel"], bit: UInt32[np.ndarray, " pixel"]
) -> tuple[Int[np.ndarray, " word"], UInt32[np.ndarray, " word"]]:
    """Returns (distinct keys, ascending, and the bits of each in one word)."""
    if not len(key):
        return key, bit
    order = np.argsort(key, kind="stable")
    key, bit = key[order], bit[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    return key[first], np.bitwise_or.reduceat(bit, first)


def _check_memory(size: int, number: int) -> None:
    free = resources.free_memory()
    if free and number % 64 == 0 and size > _SHARE * (free + size):
        raise UserError(
            f"the masks of the first {number + 1:,} images take {size / 1e9:,.1f} GB, "
            f"and only {free / 1e9:,.1f} GB are free; take a run of fewer images, or "
            "fewer layers"
        )
