"""Opens the source 'ade20k': the scene parsing benchmark, or the whole of ADE20K.

The benchmark (ADEChallengeData2016) has 150 objects:

    PATH/objectInfo150.txt                              the objects' names
    PATH/images/validation/ADE_val_00000001.jpg
    PATH/annotations/validation/ADE_val_00000001.png    numbers; 0: none of the 150

The whole data set (2016_07_26, 2021_17_01) has thousands of names and several levels of
parts. A pixel's number is red // 10 * 256 + green, the position in the names of the
index:

    PATH/index_ade20k.mat
    PATH/images/.../training/.../ADE_train_00000001.jpg
    PATH/images/.../training/.../ADE_train_00000001_seg.png        objects
    PATH/images/.../training/.../ADE_train_00000001_parts_1.png    their parts

As in Broden, a name is one concept on all maps: a part if the index says that it is one
more often than not, else an object. Of synonyms, the first is the concept's name.
"""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int32

from jdissect.base import paths
from jdissect.base.concepts import Concepts
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.data.content_hashes import hash_tables, hash_texts
from jdissect.data.files import read_bytes
from jdissect.data.label_maps import decode_label_map
from jdissect.datasets.folder import FolderSource, open_folder
from jdissect.datasets.mask_files import (
    Code,
    MaskFiles,
    Numbers,
    numbers_of,
    png_code,
)
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.mat_files import read_struct
from jdissect.datasets.names_file import is_text

BENCHMARK, INDEX = "objectInfo150.txt", "index_ade20k.mat"
_COLUMNS = ("Idx", "Name")
_LEVELS = 4  # of parts; the data set has three


@dataclasses.dataclass(frozen=True)
class AdeCode:
    """Reads a PNG of red // 10 * 256 + green."""

    numbers: Numbers

    def decode(self, path: str, shape: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
        """Returns label numbers; see `mask_files.Code`."""
        stored = decode_label_map(path, shape)
        if stored.ndim != 3:
            raise UserError(f"mask {printable(path)} is not RGB.")
        red, green = stored[..., 0].astype(np.int32), stored[..., 1]
        return self.numbers.look_up(red // 10 * 256 + green, path)


def open_ade20k(
    path: str, split: str = "", num_images: int = 0, exif_rotation: bool = False
) -> MaskedSource:
    """Opens the benchmark or the whole data set, by the table that is there.

    Args:
        path: the folder with `images`.
        split: 'training' or 'validation', a folder in `images`; '' uses all.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF.

    Raises:
        UserError: the tables are missing or malformed, the split does not exist, or an
            image has no mask.
    """
    if not path:
        raise UserError(
            "source 'ade20k' needs config.data.path, the data set's folder."
        )
    root = paths.absolute(paths.from_user(path).expanduser())
    if not root.is_dir():
        raise UserError(f"config.data.path: {root} does not exist.")
    table = next((name for name in (BENCHMARK, INDEX) if (root / name).is_file()), "")
    if not table:
        raise UserError(
            f"config.data.path: {root} has neither {BENCHMARK} (the benchmark of 150 "
            f"objects) nor {INDEX} (the whole ADE20K)."
        )
    found = open_folder(str(root / "images"), exif_rotation=exif_rotation)
    images = _of_split(found, split)
    if num_images:
        images = _selected(images, range(min(num_images, len(images.names))))
    codes: tuple[Code, ...]
    of_map: tuple[str | None, ...] = (None,)
    files: list[tuple[str, ...]]
    if table == BENCHMARK:
        concepts, numbers = _objects(root / table)
        codes = (png_code(numbers),)
        masks = open_folder(str(root / "annotations"))
        there = dict(zip(masks.names, masks.paths, strict=True))
        files = [(_mask(masks, _stem(n) + ".png", there),) for n in images.names]
    else:
        concepts, numbers = _index(root / table)
        there = dict(zip(found.names, found.paths, strict=True))
        levels = _levels(found.names)
        codes = (AdeCode(numbers),) * (1 + levels)
        of_map = ("object", *[""] * levels)
        files = [
            (
                _mask(found, _stem(name) + "_seg.png", there),
                *(
                    there.get(f"{_stem(name)}_parts_{level}.png", "")
                    for level in range(1, levels + 1)
                ),
            )
            for name in images.names
        ]
    return MaskedSource(
        images,
        MaskFiles(
            root=root,
            files=tuple(files),
            codes=codes,
            of_map=of_map,
            concepts=concepts,
            vocabulary_hash=hash_texts(["ade20k", hash_tables([root / table])]),
        ),
    )


def _of_split(found: FolderSource, split: str) -> FolderSource:
    """Returns the photographs of a split."""
    chosen, splits = [], set()
    for place, name in enumerate(found.names):
        parts = name.split("/")
        if name.lower().endswith((".jpg", ".jpeg")):
            splits.update(parts[:-1])
            if not split or split in parts[:-1]:
                chosen.append(place)
    if not chosen:
        known = [each for each in ("training", "validation") if each in splits]
        raise UserError(
            f"config.data.split: {found.root} has no photographs in a folder "
            f"{split!r}; it has {listed(known) or 'none of ADE20K at all'}. "
            "--config.data.split= takes all."
        )
    return _selected(found, chosen)


def _selected(images: FolderSource, places: Iterable[int]) -> FolderSource:
    return dataclasses.replace(
        images,
        names=tuple(images.names[place] for place in places),
        paths=tuple(images.paths[place] for place in places),
    )


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _mask(folder: FolderSource, name: str, there: dict[str, str]) -> str:
    """Returns the path of an image's mask."""
    if name not in there:
        raise UserError(f"mask {printable(f'{folder.root}/{name}')} does not exist.")
    return there[name]


def _levels(names: tuple[str, ...]) -> int:
    """Returns how many levels of parts the data set has."""
    found = (re.search(r"_parts_([1-9])\.png$", name) for name in names)
    levels = max((int(match[1]) for match in found if match), default=0)
    if levels > _LEVELS:
        raise UserError(
            f"there are {levels} levels of parts; at most {_LEVELS} are read."
        )
    return levels


def _objects(path: paths.Path) -> tuple[Concepts, Numbers]:
    """Returns the concepts of objectInfo150.txt, and what its numbers mean."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text.") from None
    header = [cell.strip() for cell in lines[0].split("\t")] if lines else []
    if not set(_COLUMNS) <= set(header):
        raise UserError(
            f"{path} has no columns {' and '.join(_COLUMNS)}, separated by tabs."
        )
    concepts = [("-", "")]
    labels: dict[int, int] = {}
    for line, text in enumerate(lines[1:], 2):
        cells = dict(zip(header, text.split("\t"), strict=False))
        number, name = (cells.get(column, "").strip() for column in _COLUMNS)
        if not text.strip():
            continue
        if not re.fullmatch(r"[1-9][0-9]{0,3}", number) or int(number) in labels:
            raise UserError(
                f"{path}, line {line}: '{printable(number, 80)}' is not a number, or "
                "listed twice."
            )
        labels[int(number)] = len(concepts)
        concepts.append((_first(name, f"{path}, line {line}"), "object"))
    if not labels:
        raise UserError(f"{path} lists no objects.")
    return tuple(concepts), numbers_of(path.name, labels)


def _index(path: paths.Path) -> tuple[Concepts, Numbers]:
    """Returns the concepts of the index, and what numbers mean."""
    index = read_struct(paths.local(path, "config.data.path"), "index")
    names = index.get("objectnames")
    if names is None or names.ndim != 1 or not 0 < len(names) < 1 << 16:
        raise UserError(f"{path} has no list 'objectnames'.")
    share = index.get("proportionClassIsPart")
    if share is None or share.shape != names.shape or share.dtype.kind not in "fiu":
        raise UserError(f"{path} has no 'proportionClassIsPart' of each name.")
    concepts = [("-", "")]
    for number, (name, of) in enumerate(zip(names, share, strict=True), 1):
        first = _first(name, f"{path}: name {number}")
        concepts.append((first, "part" if of > 0.5 else "object"))
    return tuple(concepts), numbers_of(path.name, {n: n for n in range(len(concepts))})


def _first(names: object, where: str) -> str:
    """Returns the first of several synonyms."""
    first = names.partition(",")[0].strip() if isinstance(names, str) else ""
    if not first or not is_text(first):
        raise UserError(f"{where} is {names!r:.60}, which is no name.")
    return first
