"""Stores counts per group of images, from which uncertainty is computed.

The IoU of unit k and concept c over any groups, each with any weight w, is

    sum_g w_g I[g, k, c] / sum_g w_g (F[g, k] + C[g, c] - I[g, k, c])

with I pixels of both, F pixels where the unit fires and C pixels of the concept. For
2,048 units, 1,823 concepts and 32 groups, I has 120 million entries, mostly zeros: most
concepts are in few images, and a unit fires on 1 % of the pixels. So nonzero entries
are stored in the order (group, concept, unit), each as its distance from the previous
one (16 bits) and its count (8 bits, with the few larger ones stored separately). Both
compress well, as a concept's units are adjacent.
"""

import dataclasses
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from jdissect.base import paths, safe_reading
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError

BLOCKS = 32  # blocks of images, for error bars
BY_IMAGE_ENTRIES = 2**25  # maximum number of entries of I per image
_PART = 2**21  # entries unpacked at a time
_FARTHEST = np.iinfo(np.uint16).max
_TYPES: dict[str, type[np.integer]] = {
    "gap": np.uint16,
    "low": np.uint8,
    "category": np.int32,
}
_MOST = 2**48  # limit for a count in a file; more means damage


def block(name: str) -> int:
    """Returns the block of an image, in [0, 32)."""
    return zlib.crc32(name.encode()) % BLOCKS


def blocks_of(names: Sequence[str]) -> Int[np.ndarray, " image"]:
    """Returns the block of every image, int32."""
    return np.fromiter(map(block, names), np.int32, len(names))


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """The groups of images by which a pass counts.

    Attributes:
      count: number of groups.
      of: int32[image], group of each image.
      blocks: int32[image], block of each image if groups are images, else None.
    """

    count: int
    of: Int[np.ndarray, " image"]
    blocks: Int[np.ndarray, " image"] | None = None

    @classmethod
    def choose(
        cls, images: int, entries: int, blocks: Int[np.ndarray, " image"] | None
    ) -> "Groups":
        """Chooses images if that gives at most `BY_IMAGE_ENTRIES` counts, else blocks.

        Args:
          images: number of images.
          entries: counts per group.
          blocks: int32, block of each image; by default derived from its number.
        """
        if blocks is None:
            blocks = blocks_of([str(number) for number in range(images)])
        if images * entries <= BY_IMAGE_ENTRIES:
            return cls(images, np.arange(images, dtype=np.int32), blocks)
        return cls(BLOCKS, blocks)

    def packed(
        self, counts: Sequence[np.ndarray], category: Int[np.ndarray, " concept"]
    ) -> tuple["GroupedCounts", "GroupedCounts | None"]:
        """Returns the counts by block, and by image if groups are images.

        Args:
          counts: `ops.iou.Counts` of these groups.
          category: category of each concept.
        """
        return self.by_block(GroupedCounts.of_groups(counts, category))

    def by_block(
        self, counts: "GroupedCounts"
    ) -> tuple["GroupedCounts", "GroupedCounts | None"]:
        """Returns the counts by block, and by image if groups are images."""
        if self.blocks is None:
            return counts, None
        return counts.merged(self.blocks, BLOCKS), counts


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedCounts:
    """Integer counts by group of images.

    Attributes:
      gap: distance of each stored entry of I, flat in the order (group, concept, unit),
        from the previous one, or from -1. Entries of count 0 bridge distances that do
        not fit into 16 bits.
      low: count of each entry modulo 256.
      large: int64, indices of the entries with a count over 255.
      high: those counts divided by 256.
      concept: int64[group, concept], pixels of each concept.
      unit: int64[group, category, unit], pixels where each unit fires, over the images
        that count for each category; the last row is over all images.
      category: int32[concept], category of each concept.
    """

    gap: UInt16[np.ndarray, " entry"]
    low: UInt8[np.ndarray, " entry"]
    large: Int[np.ndarray, " large"]
    high: Int[np.ndarray, " large"]
    concept: Int[np.ndarray, "group concept"]
    unit: Int[np.ndarray, "group category unit"]
    category: Int[np.ndarray, " concept"]

    @classmethod
    def pack(
        cls,
        intersection: Iterable[Int[np.ndarray, "concept unit"]],
        concept: Int[np.ndarray, "group concept"],
        unit: Int[np.ndarray, "group category unit"],
        category: Int[np.ndarray, " concept"],
    ) -> "GroupedCounts":
        """Packs full arrays of counts; `intersection` is read group by group."""
        gaps, lows = [np.zeros(0, np.uint16)], [np.zeros(0, np.uint8)]
        large, high = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        last, entries = -1, 0  # last position of the previous group, relative to this
        for part in intersection:  # by group, to save memory
            flat = np.reshape(part, -1)
            place = np.flatnonzero(flat)
            gap, count = np.diff(place, prepend=last), flat[place].astype(np.int64)
            if gap.max(initial=0) > _FARTHEST:
                gap, count = _bridged(gap, count)
            here = np.flatnonzero(count > 255)
            gaps.append(gap.astype(np.uint16))
            lows.append((count & 255).astype(np.uint8))
            large.append(here + entries)
            high.append(count[here] >> 8)
            entries += len(gap)
            last = (place[-1] if len(place) else last) - len(flat)
        return cls(
            gap=np.concatenate(gaps),
            low=np.concatenate(lows),
            large=np.concatenate(large),
            high=np.concatenate(high),
            concept=np.asarray(concept, np.int64),
            unit=np.asarray(unit, np.int64),
            category=np.asarray(category, np.int32),
        )

    @classmethod
    def of_groups(
        cls, counts: Sequence[np.ndarray], category: Int[np.ndarray, " concept"]
    ) -> "GroupedCounts":
        """Packs `ops.iou.Counts`, without their dummy concept."""
        intersection, concept, unit = counts
        return cls.pack(intersection[:, :-1], concept[:, :-1], unit, category)

    @classmethod
    def joined(cls, parts: Sequence["GroupedCounts"]) -> "GroupedCounts":
        """Joins counts of disjoint units on the same images into those of all units."""
        by_group = zip(*(part._dense() for part in parts), strict=True)
        return cls.pack(
            (np.concatenate(dense, axis=1) for dense in by_group),
            parts[0].concept,
            np.concatenate([part.unit for part in parts], axis=-1),
            parts[0].category,
        )

    def _dense(self) -> Iterator[Int[np.ndarray, "concept unit"]]:
        """Yields I of every group."""
        groups, concepts, width = self.shape
        dense, at = np.zeros(concepts * width, np.int64), 0
        for group, place, count in self._by_group():
            for _ in range(at, group):
                yield dense.reshape(concepts, width)
                dense = np.zeros(concepts * width, np.int64)
            at = group
            dense[place] = count
        for _ in range(at, groups):
            yield dense.reshape(concepts, width)
            dense = np.zeros(concepts * width, np.int64)

    @property
    def groups(self) -> int:
        return len(self.concept)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, concepts, units)."""
        return (*self.concept.shape, self.unit.shape[-1])

    def _by_group(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields (group, flat positions in it, counts), ascending, in small parts."""
        size = self.concept.shape[1] * self.unit.shape[-1]
        end = -1  # previous position, over all groups
        for start in range(0, len(self.gap), _PART):
            part = slice(start, start + _PART)
            place = np.cumsum(self.gap[part], dtype=np.int64)
            place += end
            end = int(place[-1])
            count = self.low[part].astype(np.int64)
            large = slice(*np.searchsorted(self.large, [start, start + _PART]))
            count[self.large[large] - start] += self.high[large] << 8
            for group in range(int(place[0]) // size, end // size + 1):
                first = group * size
                here = slice(*np.searchsorted(place, [first, first + size]))
                yield group, place[here] - first, count[here]

    def intersection_of(
        self, units: Int[np.ndarray, " pair"], columns: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, "pair group"]:
        """Returns I by group for pairs of a unit and a concept."""
        groups, concepts, width = self.shape
        wanted = np.asarray(columns, np.int64) * width + units
        found = np.zeros((len(wanted), groups), np.int64)
        # One group at a time, unpacked: searching for each pair would take longer.
        dense = np.zeros(concepts * width, np.int64)
        for group, place, count in self._by_group():
            dense[place] = count
            found[:, group] += dense[wanted]
            dense[place] = 0
        return found

    def union_of(
        self,
        units: Int[np.ndarray, " pair"],
        columns: Int[np.ndarray, " pair"],
        intersection: Int[np.ndarray, "pair group"],
    ) -> Int[np.ndarray, "pair group"]:
        """Returns the unions by group for pairs with the given intersections."""
        fires = self.unit[:, self.category[columns], units].T
        return fires + self.concept[:, columns].T - intersection

    def intersection(self) -> Int[np.ndarray, "unit concept"]:
        """Returns I over all groups."""
        _, concepts, width = self.shape
        total = np.zeros(concepts * width, np.int64)
        for _, place, count in self._by_group():
            total[place] += count
        return total.reshape(concepts, width).T

    def groups_of_both(self) -> Int[np.ndarray, "unit concept"]:
        """Returns the number of groups in which a unit and a concept overlap."""
        _, concepts, width = self.shape
        total = np.zeros(concepts * width, np.int64)
        for _, place, count in self._by_group():
            total[place] += count > 0
        return total.reshape(concepts, width).T

    def merged(self, group: Int[np.ndarray, " group"], groups: int) -> "GroupedCounts":
        """Merges groups: group g becomes part of group `group[g]`."""
        _, concepts, width = self.shape
        dense = np.zeros((groups, concepts * width), np.int64)
        for number, place, count in self._by_group():
            dense[group[number], place] += count

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

    def picked(self, columns: Int[np.ndarray, " column"]) -> "GroupedCounts":
        """Selects concepts, in the given order."""
        groups, concepts, width = self.shape
        new = np.full(concepts, -1)
        new[columns] = np.arange(len(columns))
        dense = np.zeros((groups, len(columns), width), np.int64)
        for number, place, count in self._by_group():
            column = new[place // width]
            kept = column >= 0
            dense[number, column[kept], place[kept] % width] = count[kept]
        return GroupedCounts.pack(
            dense, self.concept[:, columns], self.unit, self.category[columns]
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file.

        Raises:
          OSError: the file cannot be written; no partial file is left.
        """
        file = io.BytesIO()
        # Like np.savez_compressed, but five times faster and 8 % larger.
        with zipfile.ZipFile(
            file, "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as zipped:
            for field in dataclasses.fields(self):
                array = _smallest(getattr(self, field.name))
                with zipped.open(f"{field.name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array)
        write_whole(path, file.getvalue())


def _bridged(gap, count):
    """Inserts entries of count 0, so that each distance fits into 16 bits."""
    between = (gap - 1) // _FARTHEST
    last = np.cumsum(between + 1) - 1
    gaps = np.full(len(gap) + between.sum(), _FARTHEST)
    gaps[last] = gap - between * _FARTHEST
    counts = np.zeros(len(gaps), np.int64)
    counts[last] = count
    return gaps, counts


def _smallest(array: np.ndarray) -> np.ndarray:
    """Converts to the smallest unsigned type that holds the numbers."""
    largest = int(array.max(initial=0))
    return array.astype(np.min_scalar_type(largest))


def load(
    path: str | os.PathLike, units: int, concepts: int, groups: int | None = None
) -> GroupedCounts:
    """Reads a file of `GroupedCounts.save` for the given numbers of units and concepts.

    Args:
      path: path of the file.
      units, concepts: required number of units and concepts.
      groups: required number of groups; by default any.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    path = paths.from_user(path)
    names = [field.name for field in dataclasses.fields(GroupedCounts)]
    with safe_reading.Arrays(path, names) as arrays:
        for name, header in arrays.headers.items():
            if header.dtype.kind != "u":
                raise UserError(f"{path}: '{name}' does not hold unsigned integers")
        shapes = {name: header.shape for name, header in arrays.headers.items()}
        if groups is None:
            groups = shapes["concept"][0] if shapes["concept"] else 0
        categories = shapes["unit"][1] if len(shapes["unit"]) == 3 else 0
        entries, large = (math.prod(shapes[name]) for name in ("gap", "large"))
        wanted = {
            "concept": (groups, concepts),
            "unit": (groups, categories, units),
            "category": (concepts,),
            "gap": (entries,),
            "low": (entries,),
            "large": (large,),
            "high": (large,),
        }
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise UserError(
                    f"{path}: '{name}' has shape {shapes[name]}, not {shape}"
                )
        found = {name: arrays.read(name) for name in names}
    for name in ("gap", "low", "category"):
        most = np.iinfo(_TYPES[name]).max
        if (highest := int(found[name].max(initial=0))) > most:
            raise UserError(f"{path}: '{name}' has {highest}, more than {most}")
    for name in ("high", "concept", "unit"):
        if (highest := int(found[name].max(initial=0))) > _MOST:
            raise UserError(f"{path}: '{name}' counts {highest} pixels")
    end = int(found["gap"].sum(dtype=np.int64))
    for name, last, limit in (
        ("category", int(found["category"].max(initial=0)), max(categories, 1)),
        ("large", int(found["large"].max(initial=0)), max(found["gap"].size, 1)),
        ("gap", end - 1, max(groups * concepts * units, 1)),
    ):
        if last >= limit:
            raise UserError(f"{path}: '{name}' reaches {last}, beyond {limit - 1}")
    signed = ("large", "high", "concept", "unit")
    return GroupedCounts(
        **{name: found[name].astype(kind, copy=False) for name, kind in _TYPES.items()},
        **{name: found[name].astype(np.int64) for name in signed},
    )
