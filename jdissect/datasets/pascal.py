"""Opens the sources 'voc' and 'pascal_context': photographs of Pascal VOC with masks.

'voc' uses the 20 classes of the segmentation task:

    PATH/JPEGImages/2007_000032.jpg
    PATH/SegmentationClass/2007_000032.png      palette index; 255: not annotated
    PATH/ImageSets/Segmentation/val.txt         names of a split

'pascal_context' uses the label maps of Mottaghi et al., CVPR 2014, for VOC 2010:

    PATH/JPEGImages/2008_000002.jpg
    LABELS/2008_000002.mat                      all 459 classes: matrix LabelMap
    LABELS/2008_000002.png                      or 59 or 33 classes: palette index
    LABELS/labels.txt, LABELS/../59_labels.txt  lines `number: name`
    PATH/ImageSets/Main/val.txt                 names of a split
"""

import dataclasses
import pathlib
import re

import numpy as np
from jaxtyping import Int32

from jdissect.base import paths
from jdissect.base.concepts import Concepts
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.data.content_hashes import hash_tables, hash_texts
from jdissect.data.files import read_bytes
from jdissect.datasets.folder import open_folder
from jdissect.datasets.mask_files import (
    Code,
    MaskFiles,
    Numbers,
    numbers_of,
    png_code,
)
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.mat_files import read_map

# In the order of their numbers (VOC2012 development kit, VOCinit.m).
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_VOID = 255
_UNKNOWN = "unknown"  # a class of Pascal Context that is none


@dataclasses.dataclass(frozen=True)
class MatCode:
    """Reads the matrix LabelMap of a MATLAB file."""

    numbers: Numbers

    def decode(self, path: str, shape: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
        """Returns label numbers; see `mask_files.Code`."""
        stored = read_map(path, "LabelMap", shape).astype(np.int64)
        return self.numbers.look_up(stored, path)


def open_voc(
    path: str, split: str = "", num_images: int = 0, exif_rotation: bool = False
) -> MaskedSource:
    """Opens the images of VOC's segmentation task.

    Args:
        path: a folder such as VOCdevkit/VOC2012.
        split: a file of ImageSets/Segmentation, without .txt; '' uses every image that
            has a mask.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF.

    Raises:
        UserError: something is missing, or an image of the split has no mask.
    """
    root = _root(path, "voc")
    stems = _stems(root, "ImageSets/Segmentation", split)
    masks = _files(root / "SegmentationClass", ".png")
    numbers = numbers_of("VOC's 20 classes", {n: n for n in range(21)}, [_VOID])
    concepts = (("-", ""), *((name, "object") for name in CLASSES))
    return _opened(
        *(root, masks, stems, num_images, exif_rotation),
        *(png_code(numbers), concepts, hash_texts(["voc", *CLASSES])),
    )


def open_pascal_context(
    path: str,
    annotations: str,
    split: str = "",
    num_images: int = 0,
    exif_rotation: bool = False,
) -> MaskedSource:
    """Opens the images that Pascal Context labels.

    Args:
        path: a folder such as VOCdevkit/VOC2010.
        annotations: the folder of label maps. A folder 59_context_labels needs
            59_labels.txt in it or beside it, any other labels.txt.
        split: a file of ImageSets/Main, without .txt; '' uses every image that has a
            label map.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF.

    Raises:
        UserError: something is missing, or an image of the split has no label map.
    """
    root = _root(path, "pascal_context")
    if not annotations:
        raise UserError(
            "source 'pascal_context' needs config.data.annotations, the folder of the "
            "label maps (trainval, 59_context_labels)."
        )
    folder = paths.local(annotations, "config.data.annotations").expanduser().absolute()
    stems = _stems(root, "ImageSets/Main", split)
    masks = _files(folder, ".mat", ".png")
    task = re.match(r"(59|33)_", folder.name)
    table = f"{task[1]}_labels.txt" if task else "labels.txt"
    places = [place / table for place in (folder, folder.parent)]
    names = next((place for place in places if place.is_file()), None)
    if names is None:
        raise UserError(
            f"{places[0]} does not exist; it lists the label maps' numbers."
        )
    concepts, numbers = _labels(names)
    of_matlab = next(iter(masks.values())).endswith(".mat")
    code: Code = MatCode(numbers) if of_matlab else png_code(numbers)
    vocabulary = hash_texts(["pascal context", hash_tables([names])])
    return _opened(
        *(root, masks, stems, num_images, exif_rotation), *(code, concepts, vocabulary)
    )


def _root(path: str, source: str) -> pathlib.Path:
    if not path:
        raise UserError(
            f"source '{source}' needs config.data.path, a folder with JPEGImages."
        )
    root = paths.local(path, "config.data.path").expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"config.data.path: {root} does not exist.")
    if not (root / "JPEGImages").is_dir():
        raise UserError(
            f"config.data.path: {root} has no folder JPEGImages; source '{source}' "
            "needs a folder such as VOCdevkit/VOC2012."
        )
    return root


def _stems(root: pathlib.Path, below: str, split: str) -> list[str] | None:
    """Returns the names of a split's images, without extension; None for all."""
    if not split:
        return None
    splits = _files(root / below, ".txt") if (root / below).is_dir() else {}
    if split not in splits:
        raise UserError(
            f"config.data.split: {root / below} has no {printable(split)}.txt; it has "
            f"{listed(sorted(splits)) or 'none'}. --config.data.split= takes all."
        )
    try:
        text = read_bytes(pathlib.Path(splits[split])).decode()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{splits[split]} cannot be read as text.") from None
    # A second column says whether a class is in the image.
    return sorted({line.split()[0] for line in text.splitlines() if line.strip()})


def _files(folder: pathlib.Path, *endings: str) -> dict[str, str]:
    """Returns the files of the first ending that a folder has, by stem."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist.")
    for ending in endings:
        found = sorted(folder.glob(f"[!.]*{ending}"))
        if found:
            return {path.stem: str(path) for path in found}
    raise UserError(f"{folder} has no files {' or '.join(endings)}.")


def _labels(path: pathlib.Path) -> tuple[Concepts, Numbers]:
    """Reads lines of `number: name`."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text.") from None
    concepts = [("-", "")]
    labels: dict[int, int] = {}
    for line, text in enumerate(lines, 1):
        match = re.fullmatch(r"\s*([0-9]{1,4})\s*:\s*(\S[^\0]*?)\s*", text)
        if match is None and text.strip():
            raise UserError(
                f"{path}, line {line}: '{printable(text, 80)}' is not `number: name`."
            )
        if match is None:
            continue
        number, name = int(match[1]), match[2]
        if number in labels:
            raise UserError(f"{path}, line {line}: number {number} is listed twice.")
        nothing = number == 0 or name == _UNKNOWN
        labels[number] = 0 if nothing else len(concepts)
        if not nothing:
            concepts.append((name, "object"))
    if len(concepts) == 1:
        raise UserError(f"{path} names no concept.")
    return tuple(concepts), numbers_of(path.name, labels)


def _opened(
    root: pathlib.Path,
    masks: dict[str, str],
    stems: list[str] | None,
    num_images: int,
    exif_rotation: bool,
    code: Code,
    concepts: Concepts,
    vocabulary: str,
) -> MaskedSource:
    """Joins the photographs of some stems with their masks."""
    folder = open_folder(str(root / "JPEGImages"), exif_rotation=exif_rotation)
    place_of = {name.rpartition(".")[0]: at for at, name in enumerate(folder.names)}
    stems = sorted(masks) if stems is None else stems
    for stem in stems:
        for what, there in (("photograph", place_of), ("mask", masks)):
            if stem not in there:
                raise UserError(f"image {printable(stem)} of {root} has no {what}.")
    stems = stems[:num_images] if num_images else stems
    places = [place_of[stem] for stem in stems]
    return MaskedSource(
        dataclasses.replace(
            folder,
            names=tuple(folder.names[place] for place in places),
            paths=tuple(folder.paths[place] for place in places),
        ),
        MaskFiles(
            root=pathlib.Path(next(iter(masks.values()))).parent,
            files=tuple((masks[stem],) for stem in stems),
            codes=(code,),
            of_map=(None,),
            concepts=concepts,
            vocabulary_hash=vocabulary,
        ),
    )
