"""Opens the source 'broden': photographs with hand-drawn masks.

The folder has the layout of the Network Dissection release of 2017
(CSAILVision/NetDissect). Images are used at their stored size, so that the masks stay
aligned. A corrupt photograph is skipped; a corrupt mask is an error, because a broken
ground truth would silently give wrong counts.
"""

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt16
from PIL import Image

from jdissect.base import paths
from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_files, hash_tables, hash_texts
from jdissect.data.files import opened
from jdissect.data.images import decode_stored, why
from jdissect.data.source import Annotations, Example
from jdissect.datasets.broden_tables import Row, read_index, read_vocabulary

MAX_LABELS = 1 << 26  # numbers in an image's label maps: 256 MiB
# Makes PIL write a mask's pixels as four bytes, of which the first two, red and green,
# are the label number as a little-endian integer.
_RAW_MODES = {"RGB": "RGBX", "RGBA": "RGBA"}


@dataclasses.dataclass(frozen=True)
class BrodenSource:
    """Images and label maps of a Broden folder.

    Attributes:
        root: the folder.
        rows: the rows of `index.csv` in use, in file order.
        annotations: vocabulary, number of maps per image and their grid.
        known: numbers that a mask may contain.
        vocabulary_hash: sha256 over the tables that define the numbers' meaning.
    """

    root: paths.Path
    rows: tuple[Row, ...] = dataclasses.field(repr=False)
    annotations: Annotations = dataclasses.field(repr=False)
    known: frozenset[int] = dataclasses.field(repr=False)
    vocabulary_hash: str

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The `image` cells."""
        return tuple(row.image for row in self.rows)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(ih, iw), equal for all rows."""
        return self.rows[0].image_shape

    def read(self, index: int) -> Example:
        """Reads image `index` and its label maps.

        Returns:
            labels hold one map per item of the row's cells in column order, then maps
            of zeros up to the largest count of any row.

        Raises:
            UnreadableImage: the photograph is corrupt.
            UserError: its size differs from `index.csv`, or a mask is corrupt, has
                another size or mode, or contains a number that is not in `label.csv`.
        """
        row = self.rows[index]
        pixels = decode_stored(f"{self.root}/images/{row.image}", row.image)
        if pixels.shape[:2] != row.image_shape:
            raise UserError(
                f"image {printable(row.image)} is {_size(pixels.shape)} pixels, but "
                f"index.csv, line {row.line}, says {_size(row.image_shape)} (ih x iw)."
            )
        labels = np.zeros((self.annotations.maps, *self.annotations.grid), np.int32)
        for map_index, item in enumerate(row.items):
            labels[map_index] = item if isinstance(item, int) else self._mask(item)
        present = np.flatnonzero(np.bincount(labels.ravel()))
        unknown = [int(number) for number in present if number not in self.known]
        if unknown:
            place = row.items[np.argmax((labels == unknown[0]).any(axis=(1, 2)))]
            raise UserError(
                f"mask {printable(f'{self.root}/images/{place}')}: number "
                f"{unknown[0]} is not in label.csv."
            )
        annotated = np.asarray(self._category_of_number[present].any(axis=0))
        return Example(pixels, labels, annotated)

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each photograph; see `content_hashes.hash_files`."""
        files = [self.root / "images" / row.image for row in self.rows[only]]
        return hash_files(files, cache_dir, f"broden {self.root}")

    def annotation_hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 over its cells and mask files."""
        masks = sorted(
            {item for row in self.rows for item in row.items if isinstance(item, str)}
        )
        files = [self.root / "images" / mask for mask in masks]
        hashes = hash_files(files, cache_dir, f"broden masks {self.root}")
        hash_of = dict(zip(masks, hashes, strict=True))
        return tuple(
            hash_texts(
                [
                    *(text for cell in row.cells for text in cell),
                    *(hash_of[item] for item in row.items if isinstance(item, str)),
                ]
            )
            for row in self.rows
        )

    def _mask(self, name: str) -> UInt16[np.ndarray, "grid_height grid_width"]:
        """Returns the label numbers of a mask PNG: red + 256 * green."""
        path = f"{self.root}/images/{name}"
        try:
            with (
                opened(path) as file,
                Image.open(file, formats=["PNG"]) as image,
            ):
                mode, size = image.mode, (image.height, image.width)
                if mode in _RAW_MODES and size == self.annotations.grid:
                    coded = np.frombuffer(image.tobytes("raw", _RAW_MODES[mode]), "<u2")
                    return coded[::2].reshape(size)
        except (MemoryError, UserError):
            raise  # the machine or network failed, not the file
        except Exception as error:
            raise UserError(
                f"mask {printable(path)} cannot be decoded: {why(error)}."
            ) from None
        if size != self.annotations.grid:
            raise UserError(
                f"mask {printable(path)} is {_size(size)} pixels, but index.csv says "
                f"{_size(self.annotations.grid)} (sh x sw)."
            )
        raise UserError(
            f"mask {printable(path)} has PIL mode {mode}; numbers are coded as red + "
            "256 * green, which needs an RGB image."
        )

    @functools.cached_property
    def _category_of_number(self) -> Bool[np.ndarray, "numbers categories"]:
        """Returns each number's primary category, one-hot; all False for '-'."""
        concepts = self.annotations.concepts
        return np.array(
            [
                [name != "-" and category == column for column in categories(concepts)]
                for name, category in concepts
            ],
            dtype=bool,
        )


def open_broden(path: str, split: str = "", num_images: int = 0) -> BrodenSource:
    """Opens a Broden folder; checks its tables and that its files exist.

    Args:
        path: the folder with `index.csv`.
        split: the split whose rows are used; '' uses all.
        num_images: number of rows to take, from the first; 0: all.

    Raises:
        UserError: a table is missing or malformed, a file is missing, the split does
            not exist, or the rows differ in image or mask size.
    """
    if not path:
        raise UserError("source 'broden' needs config.data.path, a Broden folder.")
    root = paths.absolute(paths.from_user(path).expanduser())
    if not (root / "index.csv").is_file():
        raise UserError(
            f"config.data.path: {root} has no index.csv; source 'broden' needs a "
            "folder in Broden's layout."
        )
    vocabulary = read_vocabulary(root)
    rows = read_index(root, vocabulary)
    if split:
        splits = sorted({row.split for row in rows})
        rows = [row for row in rows if row.split == split]
        if not rows:
            raise UserError(
                f"config.data.split: {root / 'index.csv'} has no split {split!r}; it "
                f"has {', '.join(map(repr, splits))}. --config.data.split= takes all "
                "rows."
            )
    if num_images:
        rows = rows[:num_images]
    _check_shapes(root, rows)
    _check_sizes(root, rows)
    _check_files(root, rows)
    return BrodenSource(
        root=root,
        rows=tuple(rows),
        annotations=Annotations(
            concepts=vocabulary.concepts,
            maps=max(1, *(len(row.items) for row in rows)),
            grid=rows[0].grid,
        ),
        known=vocabulary.known,
        vocabulary_hash=hash_tables(vocabulary.files),
    )


def _check_shapes(root: paths.Path, rows: Sequence[Row]) -> None:
    first = rows[0]
    for row in rows:
        for what, ours, others in (
            ("image", row.image_shape, first.image_shape),
            ("mask", row.grid, first.grid),
        ):
            if ours != others:
                raise UserError(
                    f"{root / 'index.csv'}, line {row.line}: {printable(row.image)} "
                    f"has {what} size {_size(ours)}, but line {first.line} has "
                    f"{_size(others)}. All rows of a run must share one ih x iw and "
                    "one sh x sw."
                )


def _check_sizes(root: paths.Path, rows: Sequence[Row]) -> None:
    """Checks the sizes before anything of these sizes is allocated."""
    largest = max(rows, key=lambda row: len(row.items))
    (ih, iw), (sh, sw), maps = largest.image_shape, largest.grid, len(largest.items)
    most = Image.MAX_IMAGE_PIXELS or math.inf
    for what, pixels, bound in (
        (f"an image of {ih}x{iw}", ih * iw, most),
        (f"{max(1, maps)} label maps of {sh}x{sw}", max(1, maps) * sh * sw, MAX_LABELS),
    ):
        if pixels > bound:
            raise UserError(
                f"{root / 'index.csv'}, line {largest.line}: {what} pixels; at most "
                f"{bound:,} pixels can be read."
            )


def _check_files(root: paths.Path, rows: Sequence[Row]) -> None:
    """Checks that all files exist; lists each folder once, which is faster."""
    remote = paths.is_remote(root)
    wanted: dict[str, list[tuple[str, Row]]] = collections.defaultdict(list)
    for row in rows:
        masks = (item for item in row.items if isinstance(item, str))
        for name in (row.image, *masks):
            place = name if remote else paths.on_disk(name)
            folder, _, file = place.rpartition("/")
            wanted[folder].append((file, row))
    for folder, files in wanted.items():
        there = _names(root / "images" / folder)
        for file, row in files:
            path = root / "images" / folder / file
            # On a disk it may be a dangling link.
            if file not in there or not (remote or path.exists()):
                raise UserError(
                    f"{root / 'index.csv'}, line {row.line}: {printable(str(path))} "
                    "does not exist."
                )


def _names(folder: paths.Path) -> set[str]:
    """Returns the names in a folder; empty if it cannot be listed."""
    try:
        if paths.is_remote(folder):
            with paths.reaching(folder):
                return {path.name for path in folder.iterdir()}
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"
