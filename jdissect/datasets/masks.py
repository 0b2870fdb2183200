"""Opens the source 'masks': images, and PNG masks of the same names beside them.

There is one mask per image, or one per image and category:

    PATH/images/kitchen/1.jpg
    PATH/masks/kitchen/1.png             one map, all categories
    PATH/masks/object/kitchen/1.png      or one map per category
    PATH/names.txt                       number name [category] [color]
"""

import dataclasses

from jdissect.base import paths
from jdissect.base.concepts import NOTHING, Concepts
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_tables, hash_texts
from jdissect.datasets.folder import FolderSource, open_folder
from jdissect.datasets.mask_files import MaskFiles, PngCode, numbers_of, png_code
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.names_file import (
    LARGEST_NUMBER,
    Color,
    Label,
    categories_of,
    read_names,
)

NAMES = "names.txt"


def open_masks(
    path: str, num_images: int = 0, exif_rotation: bool = False, ignore: int = -1
) -> MaskedSource:
    """Opens images with masks.

    `masks/` holds either one PNG per image, which shows concepts of all categories, or
    one folder per category of `names.txt`. In the latter case an image may lack the
    mask of a category, and then does not count for that category; numbers are those of
    the category's lines.

    Args:
        path: the folder with `images`, `masks` and `names.txt`.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF; masks then are of the rotated
            photographs.
        ignore: number in masks that means no label; -1: none but 0.

    Raises:
        UserError: something is missing, `names.txt` is malformed, an image has no
            mask, a mask no image, or two images share one.
    """
    if not path:
        raise UserError(
            f"source 'masks' needs config.data.path, a folder with images, masks and "
            f"{NAMES}."
        )
    root = paths.absolute(paths.from_user(path).expanduser())
    if not root.is_dir():
        raise UserError(f"config.data.path: {root} does not exist.")
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            raise UserError(
                f"config.data.path: {root} has no folder {part}; source 'masks' needs "
                f"images, masks and {NAMES} in it."
            )
    labels = read_names(root / NAMES)
    images = open_folder(str(root / "images"), exif_rotation=exif_rotation)
    masks = open_folder(str(root / "masks"))
    of_map = _categories_of_maps(images, masks, labels)
    files = _files(images, masks, of_map)
    if num_images:
        files = files[:num_images]
        images = dataclasses.replace(
            images, names=images.names[:num_images], paths=images.paths[:num_images]
        )
    concepts, codes = vocabulary(root / NAMES, labels, of_map, ignore)
    return MaskedSource(
        images,
        MaskFiles(
            root=masks.root,
            files=files,
            codes=codes,
            of_map=of_map,
            concepts=concepts,
            vocabulary_hash=hash_texts(
                [hash_tables([root / NAMES]), str(ignore), *map(str, of_map)]
            ),
        ),
    )


def vocabulary(
    names: paths.Path,
    labels: tuple[Label, ...],
    of_map: tuple[str | None, ...],
    ignore: int,
) -> tuple[Concepts, tuple[PngCode, ...]]:
    """Returns the concepts of `names.txt`, by line, and how to read each map.

    Raises:
        UserError: a number or color of a map stands for two concepts.
    """
    if not -1 <= ignore <= LARGEST_NUMBER:
        raise UserError(
            f"config.data.ignore is {ignore}; give a number from 0 to "
            f"{LARGEST_NUMBER}, or -1 for none."
        )
    concepts = [("-", "")]
    for label in labels:
        nothing = _is_nothing(label)
        concepts.append(("-", "") if nothing else (label.name, label.category))
    codes = tuple(_code(names, labels, category, ignore) for category in of_map)
    return tuple(concepts), codes


def _categories_of_maps(
    images: FolderSource, masks: FolderSource, labels: tuple[Label, ...]
) -> tuple[str | None, ...]:
    """Returns the category of each map; (None,) for one map of all categories.

    The folders in `masks` are maps if each of them is a category, and no folder of
    images has such a name.
    """
    known = categories_of(labels)
    tops = {name.partition("/")[0] if "/" in name else "" for name in masks.names}
    of_images = {name.partition("/")[0] for name in images.names if "/" in name}
    if tops <= set(known) and not tops & of_images:
        return tuple(category for category in known if category in tops)
    return (None,)


def _files(
    images: FolderSource, masks: FolderSource, of_map: tuple[str | None, ...]
) -> tuple[tuple[str, ...], ...]:
    """Returns for each image the file of each map, '' for none."""
    there = [_by_stem(masks, f"{category}/" if category else "") for category in of_map]
    taken: dict[str, str] = {}
    files = []
    for name in images.names:
        stem = _stem(name)
        if stem in taken:
            raise UserError(
                f"{images.root} has two images for one mask: {printable(taken[stem])} "
                f"and {printable(name)}."
            )
        taken[stem] = name
        of = tuple(files_of.get(stem, "") for files_of in there)
        if not any(of):
            among = f"CATEGORY/{stem}.png" if of_map[0] else f"{stem}.png"
            raise UserError(
                f"image {printable(f'{images.root}/{name}')} has no mask "
                f"{printable(f'{masks.root}/{among}')}."
            )
        files.append(of)
    for files_of in there:
        for stem, file in files_of.items():
            if stem not in taken:
                raise UserError(
                    f"mask {printable(file)} has no image of its name in {images.root}."
                )
    return tuple(files)


def _by_stem(masks: FolderSource, prefix: str) -> dict[str, str]:
    """Returns the masks whose names begin with a prefix, by what follows it."""
    files: dict[str, str] = {}
    for name, file in zip(masks.names, masks.paths, strict=True):
        if name.startswith(prefix):
            stem = _stem(name[len(prefix) :])
            if not name.lower().endswith(".png"):
                raise UserError(f"mask {printable(file)} is not a PNG file.")
            if stem in files:
                raise UserError(
                    f"masks {printable(files[stem])} and {printable(file)} are for one "
                    "image."
                )
            files[stem] = file
    return files


def _stem(name: str) -> str:
    """Returns a name without its extension."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.rpartition('.')[0]}"


def _is_nothing(label: Label) -> bool:
    return label.number == 0 or label.name == NOTHING


def _code(
    names: paths.Path, labels: tuple[Label, ...], category: str | None, ignore: int
) -> PngCode:
    """Returns the code of a map: of one category, or of all (None).

    Raises:
        UserError: a number or color of the map stands for two concepts.
    """
    numbers: dict[int, int] = {}
    colors: dict[Color, int] = {}
    for position, label in enumerate(labels, 1):
        if category in (None, label.category):
            if label.number in numbers or label.color in colors:
                what = "number" if label.number in numbers else "color"
                raise UserError(
                    f"{names}: the {what} of {printable(label.name)} has another name "
                    "in another category, but there is one mask for all categories."
                )
            numbers[label.number] = 0 if _is_nothing(label) else position
            if label.color is not None:
                colors[label.color] = numbers[label.number]
    table = f"{NAMES} (category {printable(category)})" if category else NAMES
    ignored = [ignore] if ignore >= 0 else []
    return png_code(numbers_of(table, numbers, ignored), colors)
