"""Counts by group of images: what the uncertainty of a dissection is worked out from.

The IoU of unit k and concept c over any choice of groups, each with any weight w, is

    sum_g w_g I[g, k, c] / sum_g w_g (F[g, k] + C[g, c] - I[g, k, c])

with I pixels of both, F pixels where the unit fires and C pixels of the concept. Of
2,048 units, 1,823 concepts and 32 groups I has 120 million entries, most of them zero:
most concepts are in few images, and a unit fires on 1 % of the pixels. So entries that
are not zero are kept in the order of (group, concept, unit), each as its distance from
the one before (16 bits) and its count (8 bits, and the few that are larger by
themselves); both compress well, as a concept's units stand beside each other.
"""

import dataclasses
import functools
import io
import os
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from jdissect import paths
from jdissect.errors import UserError
from jdissect.files import write_whole

BLOCKS = 32  # blocks of images, for error bars
BY_IMAGE_ENTRIES = 2**25  # of I by image, that are not too many
_FARTHEST = np.iinfo(np.uint16).max


def block(name: str) -> int:
    """The image's block, in [0, 32)."""
    return zlib.crc32(name.encode()) % BLOCKS


def blocks_of(names: Sequence[str]) -> Int[np.ndarray, "image"]:
    """The block of every image, int32."""
    return np.fromiter(map(block, names), np.int32, len(names))


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """By which groups of images a pass counts.

    Attributes:
      count: how many there are.
      of: int32[image], each image's group.
      blocks: int32[image], each image's block, if groups are images; else None.
    """

    count: int
    of: Int[np.ndarray, "image"]
    blocks: Int[np.ndarray, "image"] | None = None

    @classmethod
    def choose(
        cls, images: int, entries: int, blocks: Int[np.ndarray, "image"] | None
    ) -> "Groups":
        """Images, where that makes no more than `BY_IMAGE_ENTRIES` counts; else blocks.

        Args:
          images: how many there are.
          entries: counts a group.
          blocks: int32, each image's block; by default that of its number as a name.
        """
        if blocks is None:
            blocks = blocks_of([str(number) for number in range(images)])
        if images * entries <= BY_IMAGE_ENTRIES:
            return cls(images, np.arange(images, dtype=np.int32), blocks)
        return cls(BLOCKS, blocks)

    def packed(
        self, counts: Sequence[np.ndarray], category: Int[np.ndarray, "concept"]
    ) -> tuple["GroupedCounts", "GroupedCounts | None"]:
        """The counts by block, and by image if they are.

        Args:
          counts: `ops.iou.Counts` of these groups.
          category: the category of each concept.
        """
        intersection, concept, unit = counts
        found = GroupedCounts.pack(
            intersection[:, :-1], concept[:, :-1], unit, category
        )
        if self.blocks is None:
            return found, None
        return found.merged(self.blocks, BLOCKS), found


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedCounts:
    """Integer counts by group of images.

    Attributes:
      gap: distance of each kept entry of I, flat in the order (group, concept, unit),
        from the one before; of the first from -1. Where it does not fit into 16 bits,
        entries of count 0 stand between.
      low: each one's count modulo 256.
      large: int64, which entries have a count over 255...
      high: ...and that count divided by 256.
      concept: int64[group, concept], pixels of each concept.
      unit: int64[group, category, unit], pixels where each unit fires, over the images
        that count for each category; in the last row over all images.
      category: int32[concept], the category of each concept.
    """

    gap: UInt16[np.ndarray, "entry"]
    low: UInt8[np.ndarray, "entry"]
    large: Int[np.ndarray, "large"]
    high: Int[np.ndarray, "large"]
    concept: Int[np.ndarray, "group concept"]
    unit: Int[np.ndarray, "group category unit"]
    category: Int[np.ndarray, "concept"]

    @classmethod
    def pack(
        cls,
        intersection: Int[np.ndarray, "group concept unit"],
        concept: Int[np.ndarray, "group concept"],
        unit: Int[np.ndarray, "group category unit"],
        category: Int[np.ndarray, "concept"],
    ) -> "GroupedCounts":
        """The small form of counts that are all there."""
        size = intersection[0].size if len(intersection) else 0
        place, count = [], []
        for number, part in enumerate(intersection):
            flat = part.reshape(-1)
            here = np.flatnonzero(flat)
            place.append(here + number * size)
            count.append(flat[here])
        place = np.concatenate([np.zeros(0, np.int64), *place])
        count = np.concatenate([np.zeros(0, np.int64), *count]).astype(np.int64)
        gap = np.diff(place, prepend=-1)
        # Entries of 0 in between, so that each distance fits.
        between = (gap - 1) // _FARTHEST
        last = np.cumsum(between + 1) - 1
        gaps = np.full(len(gap) + between.sum(), _FARTHEST, np.uint16)
        gaps[last] = gap - between * _FARTHEST
        counts = np.zeros(len(gaps), np.int64)
        counts[last] = count
        large = np.flatnonzero(counts > 255)
        return cls(
            gap=gaps,
            low=(counts & 255).astype(np.uint8),
            large=large,
            high=counts[large] >> 8,
            concept=np.asarray(concept, np.int64),
            unit=np.asarray(unit, np.int64),
            category=np.asarray(category, np.int32),
        )

    @property
    def groups(self) -> int:
        return len(self.concept)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, concepts, units)."""
        return (*self.concept.shape, self.unit.shape[-1])

    @functools.cached_property
    def _entries(self):
        """(flat place, count) of every entry, ascending."""
        count = self.low.astype(np.int64)
        count[self.large] += np.asarray(self.high, np.int64) << 8
        return np.cumsum(self.gap, dtype=np.int64) - 1, count

    def intersection_of(
        self, units: Int[np.ndarray, "pair"], columns: Int[np.ndarray, "pair"]
    ) -> Int[np.ndarray, "pair group"]:
        """I of some pairs of a unit and a concept, by group."""
        groups, concepts, width = self.shape
        place, count = self._entries
        if not len(place):
            return np.zeros((len(units), groups), np.int64)
        wanted = np.asarray(columns, np.int64) * width + units
        wanted = wanted[:, None] + np.arange(groups) * concepts * width
        found = np.minimum(np.searchsorted(place, wanted), len(place) - 1)
        return np.where(place[found] == wanted, count[found], 0)

    def union_of(
        self,
        units: Int[np.ndarray, "pair"],
        columns: Int[np.ndarray, "pair"],
        intersection: Int[np.ndarray, "pair group"],
    ) -> Int[np.ndarray, "pair group"]:
        """The unions of the pairs whose intersections are given, by group."""
        fires = self.unit[:, self.category[columns], units].T
        return fires + self.concept[:, columns].T - intersection

    def intersection(self) -> Int[np.ndarray, "unit concept"]:
        """I over all groups."""
        _, concepts, width = self.shape
        place, count = self._entries
        # Exact: sums stay below 2^53.
        flat = np.bincount(place % (concepts * width), count, concepts * width)
        return flat.astype(np.int64).reshape(concepts, width).T

    def merged(self, group: Int[np.ndarray, "group"], groups: int) -> "GroupedCounts":
        """The same by fewer groups: number g here belongs to `group[g]` there."""
        _, concepts, width = self.shape
        place, count = self._entries
        size = concepts * width
        place = np.asarray(group, np.int64)[place // size] * size + place % size
        dense = np.bincount(place, count, groups * size).astype(np.int64)

        def summed(array):
            total = np.zeros((groups, *array.shape[1:]), np.int64)
            np.add.at(total, group, array)
            return total

        return GroupedCounts.pack(
            dense.reshape(groups, concepts, width),
            summed(self.concept),
            summed(self.unit),
            self.category,
        )

    def picked(self, columns: Int[np.ndarray, "column"]) -> "GroupedCounts":
        """The same with some concepts only, in that order."""
        groups, concepts, width = self.shape
        place, count = self._entries
        dense = np.zeros((groups, len(columns), width), np.int64)
        new = np.full(concepts, -1)
        new[columns] = np.arange(len(columns))
        there = new[place // width % concepts]
        kept = there >= 0
        rest = place[kept]
        dense[rest // (concepts * width), there[kept], rest % width] = count[kept]
        return GroupedCounts.pack(
            dense, self.concept[:, columns], self.unit, self.category[columns]
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file.

        Raises:
          OSError: as the file system has it; no file is left half-written.
        """
        file = io.BytesIO()
        np.savez_compressed(
            file,
            **{
                field.name: _smallest(getattr(self, field.name))
                for field in dataclasses.fields(self)
            },
        )
        write_whole(path, file.getvalue())


def _smallest(array: np.ndarray) -> np.ndarray:
    """In the smallest unsigned type that holds its numbers."""
    largest = int(array.max(initial=0))
    return array.astype(np.min_scalar_type(largest))


def load(path: str | os.PathLike, units: int, concepts: int) -> GroupedCounts:
    """What `GroupedCounts.save` wrote, of a layer of that many units and concepts.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    path = paths.from_user(path)
    fields = dataclasses.fields(GroupedCounts)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {field.name: arrays[field.name] for field in fields}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}") from None
    if strange := [name for name, array in found.items() if array.dtype.kind != "u"]:
        raise UserError(f"{path}: '{strange[0]}' holds no unsigned integers")
    groups = len(found["concept"]) if found["concept"].ndim else 0
    categories = found["unit"].shape[1] if found["unit"].ndim == 3 else 0
    wanted = {
        "concept": (groups, concepts),
        "unit": (groups, categories, units),
        "category": (concepts,),
        "gap": (found["gap"].size,),
        "low": (found["gap"].size,),
        "large": (found["large"].size,),
        "high": (found["large"].size,),
    }
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: '{name}' has shape {found[name].shape}, not {shape}"
            )
    end = int(found["gap"].sum(dtype=np.int64))
    for name, last, limit in (
        ("category", int(found["category"].max(initial=0)), max(categories, 1)),
        ("large", int(found["large"].max(initial=0)), max(found["gap"].size, 1)),
        ("gap", end - 1, max(groups * concepts * units, 1)),
    ):
        if last >= limit:
            raise UserError(f"{path}: '{name}' leads to {last}, behind {limit - 1}")
    signed = ("large", "high", "concept", "unit")
    return GroupedCounts(
        gap=found["gap"].astype(np.uint16),
        low=found["low"].astype(np.uint8),
        category=found["category"].astype(np.int32),
        **{name: found[name].astype(np.int64) for name in signed},
    )
