"""Opens images that have one class each, for training and evaluation.

A class is a number, the position of its name in `classes`. For a folder, the names are
those of its class folders, FOLDER/CLASS/*.jpg, in the order of `class_order`. Files
without a class folder may begin with an ImageNet wnid instead, such as
n01440764_tench.JPEG.
"""

import dataclasses
import functools
import io
import os
import re
from collections.abc import Callable, Sequence
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
    """Images by index, each with a class.

    Attributes:
        names: each image's identity, in index order.
        classes: class names by number.
        stored: (height, width) of images that are used as they are; None for
            photographs of any size.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def stored(self) -> tuple[int, int] | None: ...

    def label(self, index: int) -> int:
        """Returns the class number of image `index`."""
        ...

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Returns image `index` as RGB, and its class number.

        Raises:
            UnreadableImage: this image is corrupt.
            UserError: its label is not a class number.
        """
        ...


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Returns the wnids of ImageNet's (ILSVRC2012) 1,000 classes, ascending.

    A class's number in torchvision, timm, TFDS and Keras is its position here.
    """
    path = Path(__file__).with_name("imagenet_wnids.txt")
    return tuple(path.read_text("ascii").split())


@dataclasses.dataclass(frozen=True)
class LabelledFolder:
    """Images in class folders, or named by wnid.

    Attributes:
        folder: the image source.
        of: the class name of each image.
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
    """The images of a prepared TFDS data set, with its feature 'label'.

    Attributes:
        source: a `tfds.TfdsSource` with a label.
        numbers: class number of each of its labels.
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
                f"image {self.names[index]} has label {label}, outside 0 .. "
                f"{len(self.numbers) - 1}; the split has no usable labels."
            )
        return self.numbers[label]


@dataclasses.dataclass(frozen=True)
class LabelledScenes:
    """Scenes, which are drawn at the size at which they are used.

    Attributes:
        source: the source from `scenes.open_scenes`.
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
        data_config: has `source` ('folder', 'tfds', 'scenes'), `path` (for scenes: the
            folder of prepared pictures, or ''), `name` for tfds, and optionally
            `exif_rotation` and `class_order`, see `class_order.ordered`; for tfds ''
            means the data set's own order.
        split: for tfds and scenes the split, '' means 'validation'; for a folder the
            name of a folder in it, such as 'train', or '' for the folder itself.
        num_images: number of images, 0: all; a folder's are spread evenly over its
            names, other sources give their first ones.
        classes: class names that a network knows; they define the numbers, whatever
            `class_order` says. None uses the data's own.

    Raises:
        UserError: the source is unknown or cannot be opened; a class folder has no
            images, an image has no class, a class is not in `classes`, or the order of
            the classes is ambiguous.
    """
    openers: dict[str, Callable[..., Labelled]]
    openers = {"folder": _open_folder, "tfds": _open_tfds, "scenes": _open_scenes}
    name = data_config.source
    if name not in openers:
        raise UserError(
            f"config.data.source is {name!r}, which has no classes; use "
            f"{', '.join(openers)}."
        )
    if num_images < 0:
        raise UserError(f"num_images is {num_images}; give a number > 0, or 0 for all.")
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
    from jdissect.datasets.tfds import open_tfds  # slow to import

    source = open_tfds(
        config.name, config.path, split, num_images, exif_rotation(config)
    )
    if not source.label:
        raise UserError(
            f"config.data.name: data set {config.name} has no class label, or several "
            "none of which is called 'label'."
        )
    where = f"data set {config.name}"
    if classes is None:
        choice = _class_order(config)
        known = ordered(source.classes, choice, where) if choice else source.classes
    else:
        _check_known(source.classes, classes, where)
        known = tuple(classes)
    if known == source.classes:  # two of them may share a name
        return LabelledTfds(source, tuple(range(len(known))), known)
    places = {name: number for number, name in enumerate(known)}
    return LabelledTfds(source, tuple(places[name] for name in source.classes), known)


def _open_scenes(config, split, num_images, classes) -> LabelledScenes:
    from jdissect.scenes import open_scenes  # other sources do not need it

    if choice := _class_order(config):
        raise UserError(
            f"config.data.class_order is {choice!r}; the classes of scenes have a "
            "fixed order."
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
    """Returns `config.data.class_order`; '' for configs that predate the key."""
    return getattr(config, "class_order", "")


def _class_of(name: str, root: Path) -> str:
    """Returns the class in a relative path: its first folder, or its name's wnid."""
    folder, slash, _ = name.partition("/")
    if slash:
        return folder
    wnid = WNID_NAME.match(name)
    if wnid is None:
        raise UserError(
            f"{root} has an image outside class folders, {printable(name)}; put images "
            "into FOLDER/CLASS/, or name them by wnid, such as n01440764_tench.JPEG."
        )
    return wnid[1]


def _class_folders(root: paths.Path) -> set[str]:
    """Returns the names of the folders in `root`, spelled as in image names."""
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
