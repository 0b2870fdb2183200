"""Images with a class each, for training and evaluation.

A class is a number, the position of its name in `classes`. Of a folder the names are
those of its class folders, FOLDER/CLASS/*.jpg, in the order of `class_order`; files
without a folder may carry the wnid of ImageNet that begins their name, such as
n01440764_tench.JPEG.
"""

import dataclasses
import functools
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.data.images import open_rgb
from jdissect.datasets import exif_rotation
from jdissect.datasets.class_order import ordered
from jdissect.datasets.folder import FolderSource, open_folder

WNID_NAME = re.compile(r"(n\d{8})[_.]")


class Labelled(Protocol):
    """Images by index, each of a class.

    Attributes:
        names: an image's identity, in index order.
        classes: names of the classes by number.
        stored: (height, width) of images that are used as they are; None for
            photographs of any size.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    stored: tuple[int, int] | None

    def label(self, index: int) -> int:
        """The number of image `index`'s class."""
        ...

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Image `index`, RGB, and the number of its class.

        Raises:
            UnreadableImage: this image is corrupt.
            UserError: its label is none of a class.
        """
        ...


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The wnids of ImageNet's (ILSVRC2012) 1,000 classes in ascending order.

    A class's number in torchvision, timm, TFDS and Keras is its position here.
    """
    path = Path(__file__).with_name("imagenet_wnids.txt")
    return tuple(path.read_text("ascii").split())


@dataclasses.dataclass(frozen=True)
class LabelledFolder:
    """Images of class folders, or named by wnid.

    Attributes:
        folder: the images.
        of: the name of each image's class.
    """

    folder: FolderSource
    of: tuple[str, ...] = dataclasses.field(repr=False)
    classes: tuple[str, ...] = dataclasses.field(repr=False)
    stored: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.folder.names

    def label(self, index: int) -> int:
        return self._numbers[self.of[index]]

    def read(self, index: int) -> tuple[Image.Image, int]:
        path, name = self.folder.paths[index], self.folder.names[index]
        image = open_rgb(path, name, self.folder.exif_rotation)
        return image, self.label(index)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}


@dataclasses.dataclass(frozen=True)
class LabelledTfds:
    """A prepared TFDS data set's images and its feature 'label'.

    Attributes:
        source: a `tfds.TfdsSource` with a label.
        numbers: the class of each of its labels.
    """

    source: Any
    numbers: tuple[int, ...] = dataclasses.field(repr=False)
    classes: tuple[str, ...] = dataclasses.field(repr=False)
    stored: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def label(self, index: int) -> int:
        return self._number(index, self.source.labelled(index)[1])

    def read(self, index: int) -> tuple[Image.Image, int]:
        encoded, label = self.source.labelled(index)
        label = self._number(index, label)
        name, turned = self.names[index], self.source.exif_rotation
        return open_rgb(io.BytesIO(encoded), name, turned), label

    def _number(self, index: int, label: int) -> int:
        if not 0 <= label < len(self.numbers):
            raise UserError(
                f"image {self.names[index]} has label {label}, outside of 0 .. "
                f"{len(self.numbers) - 1}; a split without labels cannot be used here."
            )
        return self.numbers[label]


@dataclasses.dataclass(frozen=True)
class LabelledScenes:
    """Scenes, which are drawn at the size at which they are used.

    Attributes:
        source: what `scenes.open_scenes` returned.
    """

    source: Any

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.source.classes)

    @property
    def stored(self) -> tuple[int, int]:
        return self.source.image_shape

    def label(self, index: int) -> int:
        return int(self.source.label(index))

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.source.read(index).pixels), self.label(index)


def open_labelled(
    data_config: Any,
    split: str,
    num_images: int = 0,
    classes: Sequence[str] | None = None,
) -> Labelled:
    """Opens the images of `config.data` with their classes.

    Args:
        data_config: has `source` ('folder', 'tfds', 'scenes'), `path` (for scenes: of
            prepared pictures, or ''), for tfds `name`, and perhaps `exif_rotation` and
            `class_order`, see `class_order.ordered`; with tfds '' is the data set's
            own order.
        split: of tfds and scenes, '' is 'validation'; of a folder the name of a folder
            in it, such as 'train', '' for itself.
        num_images: 0: all; of a folder so many, evenly spread over its names; of
            others the first.
        classes: names of the classes a network knows, which become the numbers,
            whatever `class_order` says; None for the data's own.

    Raises:
        UserError: an unknown source, or one that cannot be opened; a class folder
            without images, an image without a class, a class that is not of
            `classes`, or an order of the classes that is not known.
    """
    openers = {"folder": _open_folder, "tfds": _open_tfds, "scenes": _open_scenes}
    name = data_config.source
    if name not in openers:
        raise UserError(
            f"config.data.source is {name!r}, which has no classes; it can be "
            f"{', '.join(openers)}."
        )
    if num_images < 0:
        raise UserError(f"{num_images} images cannot be taken; 0 is all of them.")
    return openers[name](data_config, split, num_images, classes)


def _open_folder(config, split, num_images, classes) -> LabelledFolder:
    root = config.path and str(paths.to_path(config.path).expanduser() / split)
    folder = open_folder(root, exif_rotation=exif_rotation(config))
    of = tuple(_class_of(name, folder.root) for name in folder.names)
    found = set(of)
    empty = sorted(_class_folders(folder.root) - found)
    if empty:
        raise UserError(
            f"{folder.root} has class folders without images: {listed(empty)}."
        )
    if num_images and num_images < len(of):
        taken = [number * len(of) // num_images for number in range(num_images)]
        folder = dataclasses.replace(
            folder,
            names=tuple(folder.names[index] for index in taken),
            paths=tuple(folder.paths[index] for index in taken),
        )
        of = tuple(of[index] for index in taken)
    if classes is None:
        classes = ordered(found, _class_order(config), str(folder.root))
    _check_known(found, classes, folder.root)
    return LabelledFolder(folder, of, tuple(classes))


def _open_tfds(config, split, num_images, classes) -> LabelledTfds:
    from jdissect.datasets.tfds import open_tfds  # its imports take seconds

    source = open_tfds(
        config.name, config.path, split, num_images, exif_rotation(config)
    )
    if not source.label:
        raise UserError(
            f"config.data.name: data set {config.name} has no class label, or several "
            "and none of them is called 'label'."
        )
    where = f"data set {config.name}"
    if classes is None:
        choice = _class_order(config)
        known = ordered(source.classes, choice, where) if choice else source.classes
    else:
        _check_known(source.classes, classes, where)
        known = tuple(classes)
    if known == source.classes:  # of which two may have one name
        return LabelledTfds(source, tuple(range(len(known))), known)
    places = {name: number for number, name in enumerate(known)}
    return LabelledTfds(source, tuple(places[name] for name in source.classes), known)


def _open_scenes(config, split, num_images, classes) -> LabelledScenes:
    from jdissect.scenes import open_scenes  # others need not load the drawing

    if choice := _class_order(config):
        raise UserError(
            f"config.data.class_order is {choice!r}; the classes of scenes have an "
            "order of their own."
        )
    source = open_scenes(
        split or "validation", num_images, prepared=config.path or None
    )
    _check_known(source.classes, classes, "scenes")
    if classes is not None and tuple(classes) != tuple(source.classes):
        raise UserError(
            f"the network's classes are {listed(classes)}; those of scenes are "
            f"{listed(source.classes)}."
        )
    return LabelledScenes(source)


def _class_order(config: Any) -> str:
    """The key; '' in a config of before there was one."""
    return getattr(config, "class_order", "")


def _class_of(name: str, root: Path) -> str:
    """Of a relative path: its first folder, or the wnid that begins the file name."""
    folder, slash, _ = name.partition("/")
    if slash:
        return folder
    wnid = WNID_NAME.match(name)
    if wnid is None:
        raise UserError(
            f"{root} has an image in no class folder, {printable(name)}; images are to "
            "lie in FOLDER/CLASS/, or to be named by wnid, as n01440764_tench.JPEG."
        )
    return wnid[1]


def _class_folders(root: paths.Path) -> set[str]:
    """Names of the folders in `root`, as names of images have them."""
    return {
        os.fsencode(name).decode("utf-8", "backslashreplace")
        for name in paths.folders_in(root)
        if not name.startswith(".")
    }


def _check_known(found, classes, where) -> None:
    unknown = [] if classes is None else sorted(set(found) - set(classes))
    if unknown:
        raise UserError(
            f"{where} has classes that the network does not know: {listed(unknown)}; "
            f"it knows {listed(classes)}."
        )
