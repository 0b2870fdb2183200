"""Opens the source 'coco': images with the annotations of a COCO JSON file.

Every image that the file lists is annotated for every category it lists: where it has
no mask, there is nothing. All concepts are objects.

Instances may overlap. Then a pixel has all of their classes, as in Broden, on up to
`MAPS` label maps; of more classes it keeps those that cover the least of the image.
Instances of one class, crowds included, are one region.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from jdissect.base import paths
from jdissect.base.concepts import NOTHING, Concepts
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.content_hashes import hash_files, hash_texts
from jdissect.data.images import CROPPED
from jdissect.data.label_maps import crop_nearest, decode_label_map
from jdissect.datasets.coco_json import CocoFile, read_coco
from jdissect.datasets.coco_masks import decode
from jdissect.datasets.folder import open_folder
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.names_file import CATEGORY, is_text

MAPS = 4


@dataclasses.dataclass(frozen=True)
class CocoMasks:
    """Label maps of the images of a COCO file.

    Attributes:
        file: the file.
        order: of each image, its position in the file.
        shapes: (height, width) of each image as the file says.
        concepts: (name, category) by label number: the position in `categories` + 1.
    """

    file: CocoFile
    order: tuple[int, ...] = dataclasses.field(repr=False)
    shapes: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)
    concepts: Concepts = dataclasses.field(repr=False)

    @property
    def maps(self) -> int:
        return 1 if self.file.panoptic else min(MAPS, self.file.most)

    @property
    def vocabulary_hash(self) -> str:
        return hash_texts(
            ["coco", json.dumps([[*self._label_of.items()], [*self.concepts]])]
        )

    def read(
        self, index: int, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "maps 224 224"], Bool[np.ndarray, " categories"]]:
        """Returns an image's label maps and its categories; see `masked.Masks`."""
        name = printable(self._name(index))
        if shape != self.shapes[index]:
            height, width = self.shapes[index]
            raise UserError(
                f"image {name} is {shape[0]}x{shape[1]} pixels, but {self.file.path} "
                f"says {height}x{width} (height x width)."
            )
        (texts,) = self.file.annotations([self.order[index]])
        try:
            if self.file.panoptic:
                labels = self._segments(texts, shape)
            else:
                labels = self._instances(texts, shape)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.file.path}: the annotation of image {name} is wrong: "
                f"{printable(str(error))}."
            ) from None
        return labels, np.ones(1, bool)

    def hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 over its size, annotations and PNG."""
        hash_of: dict[str, str] = {}
        if self.file.panoptic:
            files = [self._png(texts[0]) for texts in self._all()]
            known = [pathlib.Path(file) for file in files]
            scope = f"panoptic {self.file.path}"
            hash_of = dict(zip(files, hash_files(known, cache_dir, scope), strict=True))
        pngs = (
            [hash_of[self._png(texts[0])]] if hash_of else [] for texts in self._all()
        )
        return tuple(
            hash_texts([*map(str, shape), *texts, *png])
            for shape, texts, png in zip(self.shapes, self._all(), pngs, strict=True)
        )

    def _all(self) -> Iterator[list[bytes]]:
        return self.file.annotations(self.order)

    def _instances(
        self, texts: list[bytes], shape: tuple[int, int]
    ) -> Int32[np.ndarray, "maps 224 224"]:
        """Returns the label maps of polygons and run lengths."""
        regions: dict[int, Any] = {}
        areas: dict[int, int] = {}
        for text in texts:
            annotation = json.loads(text)
            label = self._label_of[annotation["category_id"]]
            pixels = decode(annotation["segmentation"], shape)
            areas[label] = areas.get(label, 0) + int(pixels.sum())
            regions[label] = regions.get(label, False) | crop_nearest(pixels)
        labels = np.zeros((self.maps, CROPPED, CROPPED), np.int32)
        for label in sorted(regions, key=lambda label: (areas[label], label)):
            remaining = regions[label]
            for labels_of_map in labels:
                free = remaining & (labels_of_map == 0)
                labels_of_map[free] = label
                remaining = remaining & ~free
        return labels

    def _segments(
        self, texts: list[bytes], shape: tuple[int, int]
    ) -> Int32[np.ndarray, "maps 224 224"]:
        """Returns the label map of a panoptic PNG: red + 2^8 green + 2^16 blue."""
        file = self._png(texts[0])
        stored = decode_label_map(file, shape)
        if stored.ndim != 3:
            raise UserError(f"mask {printable(file)} is not RGB.")
        red, green, blue = np.moveaxis(stored.astype(np.int64), -1, 0)
        label_of = {0: 0}
        for segment in json.loads(texts[0])["segments_info"]:
            number = segment.get("id") if isinstance(segment, dict) else None
            if type(number) is not int or not 0 <= number < 1 << 24:
                raise ValueError("a segment has no id")
            label = self._label_of.get(segment.get("category_id"))
            if label is None:
                raise ValueError(f"segment {number} is of no category that is listed")
            label_of[number] = label
        numbers, inverse = np.unique(
            red + 256 * green + 65536 * blue, return_inverse=True
        )
        for number in numbers.tolist():
            if number not in label_of:
                raise UserError(
                    f"mask {printable(file)}: segment {number} is not in "
                    f"{self.file.path}."
                )
        table = np.array([label_of[number] for number in numbers.tolist()], np.int32)
        return crop_nearest(table[inverse.reshape(shape)])[None]

    def _png(self, text: bytes) -> str:
        """Returns the PNG of a panoptic annotation: in a folder beside the file."""
        name = json.loads(text).get("file_name")
        if not is_text(name):
            raise UserError(f"{self.file.path}: an annotation has no file_name.")
        return str(self.file.path.with_suffix("") / _inside(name, self.file.path))

    def _name(self, index: int) -> str:
        return self.file.images[self.order[index]]["file_name"]

    @functools.cached_property
    def _label_of(self) -> dict[int | str, int]:
        """Label number by category_id."""
        return {entry["id"]: at for at, entry in enumerate(self.file.categories, 1)}


def open_coco(
    path: str, annotations: str, num_images: int = 0, exif_rotation: bool = False
) -> MaskedSource:
    """Opens images with COCO annotations: instances, stuff or panoptic.

    Args:
        path: folder of the images; `file_name` in the JSON file is relative to it.
        annotations: the JSON file. The PNGs of a panoptic file x.json are in the folder
            x beside it.
        num_images: number of images to take, the first by name; 0: all.
        exif_rotation: rotate photographs by their EXIF.

    Raises:
        UserError: a path is missing, the file is malformed, or an image or its PNG
            does not exist.
    """
    if not path or not annotations:
        lacking = "annotations, a JSON file" if path else "path, a folder of images"
        raise UserError(f"source 'coco' needs config.data.{lacking}.")
    file = read_coco(
        paths.local(annotations, "config.data.annotations").expanduser().absolute()
    )
    folder = open_folder(path, exif_rotation=exif_rotation)
    file_of = dict(zip(folder.names, folder.paths, strict=True))
    order = _order(file)
    names = [file.images[place]["file_name"] for place in order]
    if missing := [name for name in names if name not in file_of]:
        raise UserError(
            f"{len(missing):,} of the {len(names):,} images that {file.path} lists are "
            f"not in {folder.root} (config.data.path), such as {printable(missing[0])}."
        )
    if file.panoptic and (np.diff(file.firsts) != 1).any():
        place = int(np.flatnonzero(np.diff(file.firsts) != 1)[0])
        name = printable(file.images[place]["file_name"])
        raise UserError(f"{file.path}: image {name} does not have one annotation.")
    if num_images:
        order, names = order[:num_images], names[:num_images]
    return MaskedSource(
        dataclasses.replace(
            folder, names=tuple(names), paths=tuple(file_of[name] for name in names)
        ),
        CocoMasks(
            file=file,
            order=tuple(order),
            shapes=tuple(_shape(file, place) for place in order),
            concepts=_concepts(file),
        ),
    )


def _order(file: CocoFile) -> list[int]:
    """Returns the positions of the images in the file, by name."""
    seen: set[str] = set()
    for image in file.images:
        name = image.get("file_name")
        if not is_text(name):
            raise UserError(f"{file.path}: image {image['id']!r:.60} has no file_name.")
        if _inside(name, file.path) in seen:
            raise UserError(f"{file.path} lists image {printable(name)} twice.")
        seen.add(name)
    if not seen:
        raise UserError(f"{file.path} lists no images.")
    names = [os.fsencode(image["file_name"]) for image in file.images]
    return sorted(range(len(names)), key=names.__getitem__)


def _shape(file: CocoFile, place: int) -> tuple[int, int]:
    image = file.images[place]
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int:
        name = printable(image["file_name"])
        raise UserError(f"{file.path}: image {name} has no height and width.")
    return height, width


def _concepts(file: CocoFile) -> Concepts:
    concepts = [("-", "")]
    for category in file.categories:
        name = category.get("name")
        if not is_text(name) or name.strip() in ("", NOTHING):
            raise UserError(
                f"{file.path}: category {category['id']!r:.60} has no name, but "
                f"{name!r:.60}."
            )
        concepts.append((name.strip(), CATEGORY))
    if len(concepts) == 1:
        raise UserError(f"{file.path} lists no categories.")
    return concepts


def _inside(name: str, file: pathlib.Path) -> str:
    """Returns a relative path that does not leave its folder."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise UserError(f"{file}: file_name {printable(name)} leads out of its folder.")
    return name
