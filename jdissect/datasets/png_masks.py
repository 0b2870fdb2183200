"""Reads label maps from PNG files whose numbers or colors a table explains."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt32

from jdissect.base import paths
from jdissect.base.concepts import Concepts, categories
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_files, hash_texts
from jdissect.data.images import CROPPED
from jdissect.data.label_maps import crop_nearest, decode_label_map
from jdissect.datasets.names_file import LARGEST_NUMBER, Color

_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Code:
    """What the numbers of a mask mean.

    Attributes:
        table: file name of the table, for messages.
        numbers: label number by stored number; `_UNKNOWN` where there is none.
        colors: the known colors, red * 2^16 + green * 2^8 + blue, ascending.
        of_color: label number by position in `colors`.
    """

    table: str
    numbers: Int32[np.ndarray, " stored"] = dataclasses.field(repr=False)
    colors: UInt32[np.ndarray, " color"] = dataclasses.field(repr=False)
    of_color: Int32[np.ndarray, " color"] = dataclasses.field(repr=False)

    def decode(self, path: str, shape: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
        """Returns the label numbers of a PNG.

        Args:
            path: path or URL of the PNG.
            shape: (height, width) that it must have.

        Raises:
            UserError: as `decode_label_map`, or the table lacks a number or color.
        """
        no_colors = "" if len(self.colors) else f"{self.table} lists no colors"
        stored = decode_label_map(path, shape, no_colors)
        if stored.ndim == 3:
            red, green, blue = np.moveaxis(stored.astype(np.uint32), -1, 0)
            stored = red << 16 | green << 8 | blue
            places = np.searchsorted(self.colors, stored).clip(max=len(self.colors) - 1)
            known = self.colors[places] == stored
            labels = np.where(known, self.of_color[places], _UNKNOWN)
            kind = "color #{:06x}"
        else:
            # Larger numbers than any that is known stand for themselves in messages.
            within = (stored >= 0) & (stored < len(self.numbers))
            labels = self.numbers[np.where(within, stored, 0)]
            labels = np.where(within, labels, _UNKNOWN)
            kind = "number {}"
        if (labels < 0).any():
            first = kind.format(int(stored[labels < 0][0]))
            raise UserError(f"mask {printable(path)}: {first} is not in {self.table}.")
        return labels


def a_code(
    table: str,
    labels: dict[int, int],
    colors: dict[Color, int] | None = None,
    ignored: Sequence[int] = (),
) -> Code:
    """Makes the code of a table.

    Args:
        table: file name of the table, for messages.
        labels: label number by stored number; the stored 0 is always no label.
        colors: label number by color; black is no label if it is not listed.
        ignored: stored numbers that are read as no label.
    """
    labels = {**labels, 0: 0, **dict.fromkeys(ignored, 0)}
    numbers = np.full(LARGEST_NUMBER + 1, _UNKNOWN, np.int32)
    numbers[list(labels)] = list(labels.values())
    packed = {r << 16 | g << 8 | b: to for (r, g, b), to in (colors or {}).items()}
    if packed:
        packed.setdefault(0, 0)
    order = sorted(packed)
    return Code(
        table,
        numbers,
        np.asarray(order, np.uint32),
        np.asarray([packed[color] for color in order], np.int32),
    )


@dataclasses.dataclass(frozen=True)
class PngMasks:
    """Label maps that are PNG files of the images' sizes.

    Attributes:
        root: the folder of the files.
        files: of each image, the path of each map's file, '' for none.
        codes: what the numbers of each map mean.
        of_map: category of each map: an image counts for it if it has a file there.
            None for a map that shows all categories.
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
        annotated = np.zeros(len(self._columns[0]), bool)
        for place, file in enumerate(self.files[index]):
            if file:
                labels[place] = crop_nearest(self.codes[place].decode(file, shape))
                annotated |= self._columns[place]
        return labels, annotated

    def hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 over its files."""
        files = sorted({file for of in self.files for file in of if file})
        known = [paths.to_path(file) for file in files]
        hash_of = dict(
            zip(files, hash_files(known, cache_dir, f"masks {self.root}"), strict=True)
        )
        return tuple(
            hash_texts([hash_of.get(file, "") for file in of]) for of in self.files
        )

    @functools.cached_property
    def _columns(self) -> Bool[np.ndarray, "maps categories"]:
        """Returns which categories each map annotates."""
        known = categories(self.concepts)
        return np.array(
            [[of is None or of == name for name in known] for of in self.of_map], bool
        )
