"""Counts where units fire by atom: the pixels that carry the same concepts.

Whether a formula holds at a pixel depends only on the concepts there. So all pixels
with the same concepts, in images that count for the same categories, form one *atom*,
and the pixels where a formula holds, with or without a unit, are sums over atoms. There
are far fewer atoms than pixels: some 60,000 in 1,000 photographs.

With human annotations an image counts for a concept only if it is annotated in the
concept's category. It counts for a formula if it counts for one of the concepts, so
that a formula cannot gain by leaving out images; a concept is not there where it is not
annotated. Categories that the same images count for form a *domain*; label maps of a
segmenter have one.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Int

from jdissect.base.errors import UserError
from jdissect.formulas.formula import Formula, holds
from jdissect.results.group_counts import BLOCKS

_PENDING = 2**23  # entries that wait to be merged
_ATOM_BITS = 32
_BYTES = 12  # of an entry


@dataclasses.dataclass(frozen=True, eq=False)
class Atoms:
    """What each atom is.

    Attributes:
      holds: int64 CSR [atom, concept] of ones: the concepts of each atom.
      pattern: int32[atom], in which domains the images of each atom are.
      domains: bool[pattern, domain]; every image counts if there is no concept.
      domain: int32[concept], domain of each concept.
    """

    holds: scipy.sparse.csr_array
    pattern: Int[np.ndarray, " atom"]
    domains: Bool[np.ndarray, "pattern domain"]
    domain: Int[np.ndarray, " concept"]

    @functools.cached_property
    def _by_column(self) -> scipy.sparse.csc_array:
        return self.holds.tocsc()

    def column(self, number: int) -> Bool[np.ndarray, " atom"]:
        """Returns the atoms of a concept."""
        columns = self._by_column
        mask = np.zeros(self.holds.shape[0], bool)
        mask[columns.indices[columns.indptr[number] : columns.indptr[number + 1]]] = 1
        return mask

    def mask(self, formula: Formula) -> Bool[np.ndarray, " atom"]:
        """Returns the atoms where a formula holds."""
        return holds(formula, self.column)

    def counts_for(self, formula: Formula) -> Bool[np.ndarray, " atom"]:
        """Returns the atoms of images that count for a formula."""
        return self.counted(self.domains_of(formula))[self.pattern]

    def domains_of(self, formula: Formula) -> frozenset[int]:
        """Returns the domains of a formula's concepts."""
        return frozenset(int(self.domain[step.column]) for step in formula)

    def counted(self, domains: frozenset[int]) -> Bool[np.ndarray, " pattern"]:
        """Returns the patterns of images that are in one of the given domains."""
        return np.asarray(self.domains[:, sorted(domains)].any(axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Pixels by unit, block of images and atom; the last unit stands for all pixels.

    Attributes:
      atoms: what each atom is.
      units: number of units.
      start: int64[units + 2], first entry of each unit.
      block, atom, pixels: uint8, int32, int64 [entry], ascending by unit, block, atom.
    """

    atoms: Atoms
    units: int
    start: Int[np.ndarray, " unit"]
    block: Int[np.ndarray, " entry"]
    atom: Int[np.ndarray, " entry"]
    pixels: Int[np.ndarray, " entry"]

    def of(
        self, blocks: Bool[np.ndarray, " block"] | None = None
    ) -> scipy.sparse.csr_array:
        """Returns the pixels over the given blocks, by default all.

        int64 CSR [unit + 1, atom]; the last row is that of all pixels.
        """
        entries: Any = slice(None) if blocks is None else blocks[self.block]
        unit = np.repeat(np.arange(self.units + 1), np.diff(self.start))
        shape = (self.units + 1, self.atoms.holds.shape[0])
        found = scipy.sparse.coo_array(
            (self.pixels[entries], (unit[entries], self.atom[entries])), shape
        )
        return found.tocsr()  # adds up the blocks

    def by_block(
        self, unit: int, mask: Bool[np.ndarray, " atom"]
    ) -> Int[np.ndarray, " block"]:
        """Returns a unit's pixels in some atoms by block; `units` is all pixels."""
        entries = slice(*self.start[unit : unit + 2])
        kept = mask[self.atom[entries]]
        counted = np.bincount(
            self.block[entries][kept], self.pixels[entries][kept], BLOCKS
        )
        return counted.astype(np.int64)  # exact: sums of float64 below 2^53

    @property
    def filled(self) -> Bool[np.ndarray, " block"]:
        """Whether each block has images."""
        blocks = np.zeros(BLOCKS, bool)
        blocks[self.block[self.start[-2] :]] = True
        return blocks


class Counter:
    """Counts image by image.

    Args:
      categories: category of each concept, by column.
      units: number of units.
      most_bytes: limit for the counts in memory.
    """

    def __init__(self, categories: Sequence[str], units: int, most_bytes: int = 2**34):
        self._categories = list(categories)
        self._units = units
        self._most = most_bytes // _BYTES
        self._number: dict[bytes, int] = {}  # of an atom
        self._labels: list[np.ndarray] = []  # columns + 1 of each atom
        self._annotated: list[np.ndarray] = []
        self._merged = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def add(self, image: Any, block: int) -> None:
        """Adds an image.

        Args:
          image: a `dissection.firing.OnImage`.
          block: its block, in [0, 32).

        Raises:
          UserError: the counts do not fit into memory.
        """
        of_pixel = self._atoms_of(image.columns, image.annotated)
        atoms, local = np.unique(of_pixel, return_inverse=True)
        count = len(atoms)
        fired = image.unit.astype(np.int64) * count + local[image.pixel]
        all_pixels = np.bincount(local, minlength=count)
        # Units fire in few atoms of an image, so that the counts are mostly zeros.
        by_unit = np.bincount(fired, minlength=self._units * count)
        pixels = np.concatenate([by_unit, all_pixels])
        place = np.flatnonzero(pixels)
        unit, which = np.divmod(place, count)
        key = ((unit * BLOCKS + block) << _ATOM_BITS) | atoms[which]
        self._new.append((key, pixels[place]))
        self._waiting += len(key)
        if self._waiting > max(_PENDING, len(self._merged[0]) // 2):
            self._merge()

    def _atoms_of(self, columns, annotated) -> Int[np.ndarray, " pixel"]:
        """Returns the number of each pixel's atom; new ones get the next numbers."""
        maps = columns.shape[0]
        rows = np.ascontiguousarray(columns.reshape(maps, -1).T)
        packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * maps)))
        distinct, of_pixel = np.unique(packed.reshape(-1), return_inverse=True)
        labels = distinct.view(rows.dtype).reshape(-1, maps).astype(np.int32)
        # The same concepts in another order, or twice, are the same atom.
        labels.sort(axis=1)
        labels[:, 1:][labels[:, 1:] == labels[:, :-1]] = 0
        labels.sort(axis=1)
        annotated = np.asarray(annotated, bool)
        prefix = annotated.tobytes()
        numbers = np.empty(len(labels), np.int64)
        for place, row in enumerate(labels):
            key = prefix + row[row > 0].tobytes()
            number = self._number.setdefault(key, len(self._number))
            if number == len(self._labels):
                self._labels.append(row[row > 0])
                self._annotated.append(annotated)
            numbers[place] = number
        return numbers[of_pixel.reshape(-1)]

    def _merge(self) -> None:
        keys, pixels = (
            np.concatenate(parts)
            for parts in zip(self._merged, *self._new, strict=True)
        )
        self._new, self._waiting = [], 0
        order = np.argsort(keys, kind="stable")
        keys, pixels = keys[order], pixels[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        summed = np.add.reduceat(pixels, first) if len(first) else pixels
        self._merged = keys[first], summed
        if len(first) > self._most:
            raise UserError(
                f"formulas: the counts of {self._units:,} units take more than "
                f"{self._most * _BYTES / 2**30:.1f} GiB; take fewer images, or name "
                "fewer --layers"
            )

    def counts(self) -> Counts:
        """Returns the counts of the images added so far."""
        self._merge()
        keys, pixels = self._merged
        unit = keys >> _ATOM_BITS
        block = (unit % BLOCKS).astype(np.uint8)
        unit //= BLOCKS
        return Counts(
            atoms=self._atoms(),
            units=self._units,
            start=np.searchsorted(unit, np.arange(self._units + 2)),
            block=block,
            atom=(keys & (2**_ATOM_BITS - 1)).astype(np.int32),
            pixels=pixels,
        )

    def _atoms(self) -> Atoms:
        names = list(dict.fromkeys(self._categories))
        annotated = np.array(self._annotated, bool).reshape(-1, len(names))
        # Categories that the same images count for share a domain.
        patterns, pattern = np.unique(annotated, axis=0, return_inverse=True)
        domains, domain = np.unique(patterns, axis=1, return_inverse=True)
        lengths = [len(row) for row in self._labels]
        columns = np.concatenate([np.zeros(0, np.int32), *self._labels]) - 1
        rows = np.repeat(np.arange(len(lengths)), lengths)
        holds = scipy.sparse.csr_array(
            (np.ones(len(rows), np.int64), (rows, columns)),
            (len(lengths), len(self._categories)),
        )
        places = [names.index(category) for category in self._categories]
        return Atoms(
            holds,
            pattern.reshape(-1).astype(np.int32),
            domains,
            domain.reshape(-1)[places].astype(np.int32),
        )


def count(
    images: Iterable[Any],
    blocks: Int[np.ndarray, " image"],
    categories: Sequence[str],
    units: int,
    most_bytes: int = 2**34,
) -> Counts:
    """Counts all images of a layer.

    Args:
      images: a `dissection.firing.OnImage` each.
      blocks: block of each image, by its number.
      categories: category of each concept, by column.
      units: number of units.
      most_bytes: limit for the counts in memory.

    Raises:
      UserError: the counts do not fit into memory.
    """
    counter = Counter(categories, units, most_bytes)
    for image in images:
        counter.add(image, int(blocks[image.index]))
    return counter.counts()
