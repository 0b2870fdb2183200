"""Opens the source 'huggingface': image columns of Parquet or Arrow files on disk.

These are the files of a data set on the Hugging Face Hub, and those that `save_to_disk`
writes. An image is a struct with its encoded `bytes`, or a binary value. The package
`datasets` is not needed.

    PATH/data/validation-00000-of-00001.parquet     columns image and annotation
    PATH/names.txt                                  the annotation's numbers
"""

import bisect
import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int32

from jdissect.base import paths
from jdissect.base.concepts import Concepts, categories
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.data.content_hashes import hash_records, hash_tables, hash_texts
from jdissect.data.files import MAX_BYTES
from jdissect.data.images import CROPPED, decode_cropped, why
from jdissect.data.label_maps import crop_nearest
from jdissect.data.source import Annotations, Example
from jdissect.datasets.mask_files import PngCode
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.masks import NAMES, vocabulary
from jdissect.datasets.names_file import read_names

_KEPT = 4  # row groups in memory
_READING = threading.Lock()  # so that threads do not read the same row group


@dataclasses.dataclass(frozen=True)
class Column:
    """The encoded images in a column.

    Attributes:
        files: absolute paths, in order of the rows.
        groups: (file, row group) of each run of rows; row group -1: the whole file.
        firsts: first row of each of them.
        name: name of the column.
    """

    files: tuple[str, ...] = dataclasses.field(repr=False)
    groups: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)
    firsts: tuple[int, ...] = dataclasses.field(repr=False)
    name: str

    def encoded(self, row: int) -> bytes:
        """Returns an encoded image.

        Raises:
            UserError: the file is damaged, or the row has no bytes.
        """
        place = bisect.bisect_right(self.firsts, row) - 1
        file, group = self.groups[place]
        with _READING:
            path = self.files[file]
            column = _read_column(path, group, self.name, _stamp(path))
        with _reading(path):  # the row group may have fewer rows than the file says
            value = column[row - self.firsts[place]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise UserError(
                f"{printable(self.files[file])}: row {row - self.firsts[place]} of row "
                f"group {max(group, 0)} has no bytes in column {printable(self.name)}; "
                "files elsewhere are not read."
            )
        return value


@dataclasses.dataclass(frozen=True)
class HuggingFaceImages:
    """Images of a column.

    Attributes:
        names: FILE/ROW.
        column: the images.
        scope: what the images are of, for the manifest of hashes.
        smallest: side in pixels below which an image counts as unreadable.
        exif_rotation: rotate photographs by their EXIF orientation.
    """

    names: tuple[str, ...] = dataclasses.field(repr=False)
    column: Column
    scope: str
    image_shape: tuple[int, int] = (CROPPED, CROPPED)
    annotations: Annotations | None = None
    smallest: int = 1
    exif_rotation: bool = False

    def file(self, index: int) -> io.BytesIO:
        """Returns image `index` as stored."""
        return io.BytesIO(self.column.encoded(index))

    def read(self, index: int) -> Example:
        """Reads image `index`; raises UnreadableImage if it is corrupt."""
        pixels = decode_cropped(
            self.file(index), self.names[index], self.smallest, self.exif_rotation
        )
        return Example(pixels, labels=None, annotated=None)

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each image as stored; see `hash_records`."""
        return _hashes(self.column, range(len(self.names))[only], cache_dir, self.scope)


@dataclasses.dataclass(frozen=True)
class HuggingFaceMasks:
    """Label maps of a column.

    Attributes:
        names: of the images.
        column: the masks, PNGs.
        scope: what the masks are of, for the manifest of hashes.
        code: how to read them.
        concepts: (name, category) by label number.
        vocabulary_hash: sha256 over the names.
    """

    names: tuple[str, ...] = dataclasses.field(repr=False)
    column: Column
    scope: str
    code: PngCode
    concepts: Concepts = dataclasses.field(repr=False)
    vocabulary_hash: str
    maps: int = 1

    def read(
        self, index: int, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "maps 224 224"], Bool[np.ndarray, " categories"]]:
        """Returns an image's label map and its categories; see `masked.Masks`."""
        content = io.BytesIO(self.column.encoded(index))
        name = f"{self.names[index]} ({self.column.name})"
        labels = self.code.decode(name, shape, content)
        annotated = np.ones(len(categories(self.concepts)), bool)
        return crop_nearest(labels)[None], annotated

    def hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 of its mask."""
        return _hashes(self.column, range(len(self.names)), cache_dir, self.scope)


def open_huggingface(
    path: str,
    annotations: str = "",
    split: str = "",
    num_images: int = 0,
    exif_rotation: bool = False,
    ignore: int = -1,
) -> HuggingFaceImages | MaskedSource:
    """Opens image columns of Parquet or Arrow files.

    Args:
        path: a file, or a folder with such files in it.
        annotations: the column of masks, which `names.txt` in the folder explains; ''
            for images alone.
        split: takes files whose name begins with it, or that are in a folder of its
            name; '' takes all.
        num_images: number of rows to take, the first ones; 0: all.
        exif_rotation: rotate photographs by their EXIF.
        ignore: number in masks that means no label; -1: none but 0.

    Raises:
        UserError: there are no such files, one is damaged, or a column is missing.
    """
    if not path:
        raise UserError(
            "source 'huggingface' needs config.data.path, a folder of Parquet or Arrow "
            "files."
        )
    place = paths.local(path, "config.data.path").expanduser().absolute()
    folder = place.parent if place.is_file() else place
    files = _files(place, folder, split)
    column, masks = _columns(files[0], annotations)
    groups: list[tuple[int, int]] = []
    firsts: list[int] = []
    names: list[str] = []
    for number, file in enumerate(files):
        begin, below = len(names), paths.as_text(file.relative_to(folder))
        for group, rows in _groups(file, (column, *masks)):
            groups.append((number, group))
            firsts.append(len(names))
            names += [f"{below}/{len(names) - begin + row}" for row in range(rows)]
    if not names:
        raise UserError(f"config.data.path: the files of {place} have no rows.")
    if num_images:
        names = names[:num_images]
    kept = tuple(map(str, files)), tuple(groups), tuple(firsts)
    images = HuggingFaceImages(
        names=tuple(names),
        column=Column(*kept, column),
        scope=f"huggingface {folder} {split} {column}",
        exif_rotation=exif_rotation,
    )
    if not masks:
        return images
    names_file = folder / NAMES
    concepts, codes = vocabulary(names_file, read_names(names_file), (None,), ignore)
    return MaskedSource(
        images,
        HuggingFaceMasks(
            names=images.names,
            column=Column(*kept, annotations),
            scope=f"huggingface {folder} {split} {annotations}",
            code=codes[0],
            concepts=concepts,
            vocabulary_hash=hash_texts([hash_tables([names_file]), str(ignore)]),
        ),
    )


def _hashes(
    column: Column, wanted: range, cache_dir: Path | None, scope: str
) -> tuple[str, ...]:
    files = [pathlib.Path(file) for file in column.files]
    return hash_records(column.encoded, wanted, files, cache_dir, scope)


def _files(place: pathlib.Path, folder: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Returns the files of a split, by name."""
    if not place.exists():
        raise UserError(f"config.data.path: {place} does not exist.")
    for ending in (".parquet", ".arrow"):
        found = [place] if place.is_file() else [*place.rglob(f"[!.]*{ending}")]
        found = [file for file in found if file.suffix == ending and file.is_file()]
        found.sort(key=os.fsencode)
        if found:
            break
    else:
        raise UserError(
            f"config.data.path: {place} has no files .parquet or .arrow; source "
            "'huggingface' reads those of a downloaded or saved data set."
        )
    chosen = [file for file in found if not split or _is_of(file, folder, split)]
    if not chosen:
        names = [paths.as_text(file.relative_to(folder)) for file in found]
        raise UserError(
            f"config.data.split: no file of {place} begins with '{printable(split)}'; "
            f"it has {listed(names)}. --config.data.split= takes all."
        )
    return chosen


def _is_of(file: pathlib.Path, folder: pathlib.Path, split: str) -> bool:
    name = file.stem
    return (
        name == split
        or name.startswith((f"{split}-", f"{split}_"))
        or split in file.relative_to(folder).parts[:-1]
    )


def _columns(file: pathlib.Path, annotations: str) -> tuple[str, tuple[str, ...]]:
    """Returns the column of images, and that of masks if there is one."""
    with _reading(file):  # names may not be UTF-8
        known = [field.name for field in _schema(file) if _is_image(field.type)]
    if annotations and annotations not in known:
        raise UserError(
            f"config.data.annotations: {file} has no image column "
            f"'{printable(annotations)}'; it has {listed(known) or 'none'}."
        )
    others = [name for name in known if name != annotations]
    if "image" in others:
        others = ["image"]
    if len(others) != 1:
        raise UserError(
            f"{file} has no column 'image', and {len(others)} other image columns"
            f"{': ' * bool(others)}{listed(others)}."
        )
    return others[0], (annotations,) if annotations else ()


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_image(kind.field(place).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _groups(file: pathlib.Path, columns: tuple[str, ...]) -> list[tuple[int, int]]:
    """Returns (row group, number of rows) of a file that has the columns."""
    with _reading(file):
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as parquet:
                schema, meta = parquet.schema_arrow, parquet.metadata
                sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
                groups = list(enumerate(sizes))
        else:
            table = _arrow(str(file))
            schema, groups = table.schema, [(-1, table.num_rows)]
        if lacking := set(columns) - set(schema.names):
            raise ValueError(f"it has no column {printable(min(lacking))}")
        return groups
    raise AssertionError  # `_reading` lets no error through


def _schema(file: pathlib.Path) -> pa.Schema:
    with _reading(file):
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as parquet:
                return parquet.schema_arrow
        return _arrow(str(file)).schema
    raise AssertionError  # `_reading` lets no error through


@functools.lru_cache(maxsize=_KEPT)
def _read_column(
    file: str, group: int, name: str, stamp: tuple[int, ...]
) -> pa.ChunkedArray:
    """Returns a column of a row group, or of a whole file (-1)."""
    del stamp  # a changed file is read again
    with _reading(file):
        if group < 0:
            table = _arrow(file).select([name])
            table.validate(full=True)  # places in the file are what the file says
            return table.column(name)
        with pq.ParquetFile(file) as parquet:
            size = parquet.metadata.row_group(group).total_byte_size
            if size > MAX_BYTES:
                raise ValueError(f"a row group has {size:,} bytes, above {MAX_BYTES:,}")
            return parquet.read_row_group(group, columns=[name]).column(name)
    raise AssertionError  # `_reading` lets no error through


def _stamp(file: str) -> tuple[int, ...]:
    with _reading(file):
        status = pathlib.Path(file).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    raise AssertionError  # `_reading` lets no error through


def _arrow(file: str) -> pa.Table:
    """Returns the table of a file of Arrow's stream format, without copying it."""
    return pa.ipc.open_stream(pa.memory_map(file)).read_all()


@contextlib.contextmanager
def _reading(file: str | pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (MemoryError, UserError):
        raise  # the machine failed, not the file
    except Exception as error:  # of Arrow, for a broken file
        raise UserError(
            f"{printable(str(file))} cannot be read: {why(error)}."
        ) from None
