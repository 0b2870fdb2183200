"""Opens the source 'tfds': a prepared TensorFlow Datasets data set, without TensorFlow.

Random access uses `as_data_source`, which needs the array_record file format. Images
are read encoded, so that they are hashed as stored and decoded by PIL like those of a
folder: resize to 256x256, center crop 224.
"""

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.data.content_hashes import hash_records
from jdissect.data.images import CROPPED, decode_cropped
from jdissect.data.source import Annotations, Example


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """The images of one split.

    Attributes:
        names: NAME/VERSION/SPLIT/INDEX.
        feature: key of the image in an example.
        examples: random access to the split, images encoded.
        files: the files that hold the data set.
        smallest: side in pixels below which an image counts as unreadable.
        label: key of the class in an example; '' if there is none.
        classes: class names by number.
        exif_rotation: rotate photographs by their EXIF orientation.
    """

    names: tuple[str, ...] = dataclasses.field(repr=False)
    feature: str
    examples: Sequence[Any]
    files: tuple[paths.Path, ...] = dataclasses.field(repr=False)
    image_shape: tuple[int, int] = (CROPPED, CROPPED)
    annotations: Annotations | None = None
    smallest: int = 1
    label: str = ""
    classes: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    exif_rotation: bool = False

    def read(self, index: int) -> Example:
        """Reads image `index`; raises UnreadableImage if it is corrupt."""
        encoded = io.BytesIO(self._encoded(index))
        name = self.names[index]
        pixels = decode_cropped(encoded, name, self.smallest, self.exif_rotation)
        return Example(pixels, labels=None, annotated=None)

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each image as stored; see `hash_records`."""
        wanted = range(len(self.names))[only]
        scope = "tfds " + self.names[0].rpartition("/")[0]
        return hash_records(self._encoded, wanted, self.files, cache_dir, scope)

    def labelled(self, index: int) -> tuple[bytes, int]:
        """Returns an encoded image and its class number; needs a source with label."""
        example = self._example(index)
        return example[self.feature], int(example[self.label])

    def _encoded(self, index: int) -> bytes:
        return self._example(index)[self.feature]

    def _example(self, index: int) -> Any:
        try:
            return self.examples[index]
        except Exception as error:  # record readers raise various types
            raise UserError(
                f"record {self.names[index]} cannot be read; the prepared data set is "
                f"damaged: {_first_line(error)}"
            ) from None


def open_tfds(
    name: str,
    data_dir: str = "",
    split: str = "validation",
    num_images: int = 0,
    exif_rotation: bool = False,
) -> TfdsSource:
    """Opens a data set that TFDS has prepared.

    Args:
        name: TFDS name: 'imagenet2012', 'NAME:VERSION', 'NAME/CONFIG'.
        data_dir: TFDS data folder; '' means its default.
        split: 'validation', 'train[:1000]', ...; '' means 'validation'.
        num_images: number of images to take, from the first; 0: all.
        exif_rotation: rotate photographs by their EXIF orientation.

    Raises:
        UserError: the data set is not prepared, its format has no random access, or
            it lacks the split or an image feature.
    """
    if not name:
        raise UserError(
            "source 'tfds' needs config.data.name, a data set such as 'imagenet2012'."
        )
    split = split or "validation"
    builder = _builder(name, data_dir)
    info = builder.info
    feature = _image_feature(name, info.features)
    try:
        examples = builder.as_data_source(
            split=split,
            decoders={
                key: tfds.decode.SkipDecoding()
                for key, value in info.features.items()
                if isinstance(value, tfds.features.Image)
            },
        )
        count = len(examples)
    except NotImplementedError:
        raise UserError(
            f"data set {name} in {builder.data_path} has no random access (format "
            f"{info.file_format.value}). Prepare it in another folder with: "
            f"{_prepare_command(name, 'FOLDER')}"
        ) from None
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"config.data.split: data set {name} has no split {split!r}; it has "
            f"{', '.join(info.splits)}. ({_first_line(error)})"
        ) from None
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data set {name} in {builder.data_path} cannot be opened: "
            f"{_first_line(error)}"
        ) from None
    if not count:
        raise UserError(f"split {split!r} of data set {name} has no images.")
    if num_images:
        count = min(count, num_images)
    return TfdsSource(
        names=tuple(f"{info.full_name}/{split}/{index}" for index in range(count)),
        feature=feature,
        examples=examples,
        files=_files(paths.to_path(os.fspath(builder.data_path))),
        exif_rotation=exif_rotation,
        **_label_feature(info.features),
    )


def _builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Opens the prepared data set from its files, without the code that made it."""
    where = {}
    if data_dir:
        where["data_dir"] = str(paths.from_user(data_dir).expanduser())
    try:
        return read_only_builder.builder_from_files(name, **where)
    except tfds.core.DatasetNotFoundError:
        place = where.get("data_dir", "TFDS's default data folder")
        raise UserError(
            f"data set {name} is not prepared in {place} (config.data.path). Prepare "
            f"it with: {_prepare_command(name, data_dir)}"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # the metadata may be anything, or need TensorFlow
        raise UserError(
            f"config.data.name: data set {name!r} cannot be opened: "
            f"{_first_line(error)}"
        ) from None


def _image_feature(name: str, features: Any) -> str:
    """Returns the key of the only image feature, or of the one called 'image'."""
    images = [
        key
        for key, feature in dict(features).items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype in (np.uint8, np.uint16)
    ]
    if "image" in images:
        return "image"
    if len(images) != 1:
        found = (
            f"several image features: {listed(images)}"
            if images
            else f"no image feature of 8 or 16 bits; it has {_described(features)}"
        )
        raise UserError(f"config.data.name: data set {name} has {found}.")
    return images[0]


def _described(features: Any) -> str:
    """Returns feature names and types, such as 'image (Tensor uint8), text (Text)'."""
    return listed(
        [
            f"{key} ({type(feature).__name__} {getattr(feature, 'np_dtype', '')})"
            for key, feature in dict(features).items()
        ]
    )


def _label_feature(features: Any) -> dict[str, Any]:
    """Returns key and class names of the feature 'label', or of the only class label.

    A label without a known number of classes is ignored.
    """
    labels = {
        key: feature
        for key, feature in dict(features).items()
        if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes
    }
    if "label" not in labels and len(labels) != 1:
        return {}
    key = "label" if "label" in labels else next(iter(labels))
    return {"label": key, "classes": tuple(labels[key].names)}


def _files(folder: paths.Path) -> tuple[paths.Path, ...]:
    """Returns the files with the data set's content; empty if it is not a folder."""
    return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()


def _prepare_command(name: str, data_dir: str) -> str:
    """Returns a command without TensorFlow, which the tool `tfds` would need."""
    place = f"data_dir='{data_dir}', " if data_dir else ""
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', {place}file_format='array_record')"
        '.download_and_prepare()"'
    )


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return printable(text, 300)
