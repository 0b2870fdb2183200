"""Reads label maps from a file per image and map, by a table of their numbers."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from jaxtyping import Bool, Int32, Shaped, UInt32

from jdissect.base import paths
from jdissect.base.concepts import NOTHING, Concepts, categories
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_files, hash_texts
from jdissect.data.images import CROPPED
from jdissect.data.label_maps import crop_nearest, decode_label_map
from jdissect.datasets.names_file import LARGEST_NUMBER, Color

_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What the numbers of a mask mean.

    Attributes:
        table: file name of the table, for messages.
        labels: label number by stored number; `_UNKNOWN` where there is none.
    """

    table: str
    labels: Int32[np.ndarray, " stored"] = dataclasses.field(repr=False)

    def look_up(
        self, stored: Shaped[np.ndarray, "h w"], path: str
    ) -> Int32[np.ndarray, "h w"]:
        """Returns the label numbers of stored numbers.

        Raises:
            UserError: the table lacks a number; names the file.
        """
        if stored.dtype in (np.uint8, np.uint16):  # none exceeds the table
            found = self.labels[stored]
        else:
            within = (stored >= 0) & (stored < len(self.labels))
            found = self.labels[np.where(within, stored, 0).astype(np.int64)]
            found = np.where(within, found, _UNKNOWN)
        return checked(found, stored, "number {}", path, self.table)


def numbers_of(
    table: str, labels: dict[int, int], ignored: Sequence[int] = ()
) -> Numbers:
    """Returns the numbers of a table.

    Args:
        table: file name of the table, for messages.
        labels: label number by stored number; the stored 0 is always no label.
        ignored: stored numbers that are read as no label.
    """
    labels = {**labels, 0: 0, **dict.fromkeys(ignored, 0)}
    of = np.full(LARGEST_NUMBER + 1, _UNKNOWN, np.int32)
    of[list(labels)] = list(labels.values())
    return Numbers(table, of)


def checked(
    labels: Int32[np.ndarray, "h w"],
    stored: Shaped[np.ndarray, "h w"],
    kind: str,
    path: str,
    table: str,
) -> Int32[np.ndarray, "h w"]:
    """Returns label numbers if none is `_UNKNOWN`."""
    if labels.size and labels.min() == _UNKNOWN:
        first = kind.format(int(stored[labels == _UNKNOWN][0]))
        raise UserError(f"mask {printable(path)}: {first} is not in {table}.")
    return labels


class Code(Protocol):
    """Reads the label numbers of a file."""

    def decode(self, path: str, shape: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
        """Returns label numbers, 0 for no label.

        Args:
            path: path or URL of the file.
            shape: (height, width) that it must have.

        Raises:
            UserError: the file is damaged, has another size, or a number without a
                meaning.
        """
        ...


@dataclasses.dataclass(frozen=True)
class PngCode:
    """Reads a PNG of numbers, or of colors.

    Attributes:
        numbers: of gray values and palette indices.
        colors: the known colors, red * 2^16 + green * 2^8 + blue, ascending; () if
            RGB files are not accepted.
        of_color: label number by position in `colors`.
    """

    numbers: Numbers
    colors: UInt32[np.ndarray, " color"] = dataclasses.field(repr=False)
    of_color: Int32[np.ndarray, " color"] = dataclasses.field(repr=False)

    def decode(
        self, path: str, shape: tuple[int, int], content: BinaryIO | None = None
    ) -> Int32[np.ndarray, "h w"]:
        """Returns label numbers; see `Code`.

        `content` is that of a PNG which is not a file of its own.
        """
        table = self.numbers.table
        no_colors = "" if len(self.colors) else f"there are no colors in {table}"
        stored = decode_label_map(path, shape, no_colors, content)
        if stored.ndim == 2:
            return self.numbers.look_up(stored, path)
        red, green, blue = np.moveaxis(stored.astype(np.uint32), -1, 0)
        packed = red << 16 | green << 8 | blue
        places = np.searchsorted(self.colors, packed).clip(max=len(self.colors) - 1)
        known = self.colors[places] == packed
        labels = np.where(known, self.of_color[places], _UNKNOWN)
        return checked(labels, packed, "color #{:06x}", path, table)


def png_code(numbers: Numbers, colors: dict[Color, int] | None = None) -> PngCode:
    """Returns how to read PNGs of numbers or colors.

    Args:
        numbers: what numbers mean.
        colors: label number by color; black is no label if it is not listed.
    """
    packed = {r << 16 | g << 8 | b: to for (r, g, b), to in (colors or {}).items()}
    if packed:
        packed.setdefault(0, 0)
    order = sorted(packed)
    return PngCode(
        numbers,
        np.asarray(order, np.uint32),
        np.asarray([packed[color] for color in order], np.int32),
    )


@dataclasses.dataclass(frozen=True)
class MaskFiles:
    """Label maps of the images' sizes, in files.

    Attributes:
        root: the folder of the files.
        files: of each image, the path of each map's file, '' for none.
        codes: how to read each map.
        of_map: category of each map: an image with a file there counts for it. None
            for a map that annotates all categories, '' for one that annotates only
            what it shows.
        concepts: (name, category) by label number.
        vocabulary_hash: sha256 over the tables.
    """

    root: paths.Path
    files: tuple[tuple[str, ...], ...] = dataclasses.field(repr=False)
    codes: tuple[Code, ...] = dataclasses.field(repr=False)
    of_map: tuple[str | None, ...]
    concepts: Concepts = dataclasses.field(repr=False)
    vocabulary_hash: str

    @property
    def maps(self) -> int:
        return len(self.codes)

    def read(
        self, index: int, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "maps 224 224"], Bool[np.ndarray, " categories"]]:
        """Returns an image's label maps and its categories; see `masked.Masks`."""
        labels = np.zeros((self.maps, CROPPED, CROPPED), np.int32)
        annotated = np.zeros(self._of_map.shape[1], bool)
        for place, file in enumerate(self.files[index]):
            if file:
                whole = self.codes[place].decode(file, shape)
                labels[place] = crop_nearest(whole)
                annotated |= self._of_map[place]
                if not annotated.all():
                    # Also what the crop cuts away was seen.
                    seen = np.flatnonzero(np.bincount(whole.ravel()))
                    annotated |= self._of_number[seen].any(axis=0)
        return labels, annotated

    def hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 over its files."""
        files = sorted({file for of in self.files for file in of if file})
        known = [paths.to_path(file) for file in files]
        scope = f"masks {self.root}"
        hash_of = dict(zip(files, hash_files(known, cache_dir, scope), strict=True))
        return tuple(
            hash_texts([hash_of.get(file, "") for file in of]) for of in self.files
        )

    @functools.cached_property
    def _of_map(self) -> Bool[np.ndarray, "maps categories"]:
        """Returns which categories each map annotates."""
        known = categories(self.concepts)
        return np.array(
            [[of is None or of == name for name in known] for of in self.of_map], bool
        )

    @functools.cached_property
    def _of_number(self) -> Bool[np.ndarray, "numbers categories"]:
        """Returns each number's category, one-hot; all False for no label."""
        known = categories(self.concepts)
        return np.array(
            [
                [name != NOTHING and category == each for each in known]
                for name, category in self.concepts
            ],
            bool,
        )
