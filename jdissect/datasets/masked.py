"""Joins images of any size with their label maps, in the geometry of a folder.

Images are resized to 256x256 and cropped to 224, as those of the source 'folder' are.
Label maps have the stored size of their image and get the same geometry by
`label_maps.crop_nearest`: a pixel has the label at its center in the stored image.
"""

import dataclasses
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from jaxtyping import Bool, Int32

from jdissect.base.concepts import Concepts
from jdissect.data.images import CROPPED, open_rgb, resize_and_crop
from jdissect.data.source import Annotations, Example


class Images(Protocol):
    """Encoded images by index, such as `folder.FolderSource`."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def exif_rotation(self) -> bool: ...

    def file(self, index: int) -> str | BinaryIO:
        """Returns the path or the content of an image."""
        ...

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]: ...


class Masks(Protocol):
    """Label maps by image index, in the geometry of the cropped images.

    Attributes:
        concepts: (name, category) by number.
        maps: label maps per image.
        vocabulary_hash: sha256 over what defines the numbers' meaning.
    """

    @property
    def concepts(self) -> Concepts: ...

    @property
    def maps(self) -> int: ...

    @property
    def vocabulary_hash(self) -> str: ...

    def read(
        self, index: int, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "maps height width"], Bool[np.ndarray, " categories"]]:
        """Returns an image's label maps, and for which categories it counts.

        Args:
            index: the image.
            shape: (height, width) of the stored image.

        Raises:
            UserError: the annotation is damaged or does not fit the image.
        """
        ...

    def hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 of its annotation."""
        ...


@dataclasses.dataclass(frozen=True)
class MaskedSource:
    """Images with label maps.

    Attributes:
        images: the images.
        masks: their label maps, by the same index.
        smallest: side in pixels below which an image counts as unreadable.
    """

    images: Images
    masks: Masks
    smallest: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.names

    @property
    def image_shape(self) -> tuple[int, int]:
        return (CROPPED, CROPPED)

    @property
    def annotations(self) -> Annotations:
        concepts = tuple(self.masks.concepts)
        return Annotations(concepts, self.masks.maps, (CROPPED, CROPPED))

    @property
    def vocabulary_hash(self) -> str:
        return self.masks.vocabulary_hash

    def read(self, index: int) -> Example:
        """Reads image `index` and its label maps.

        Raises:
            UnreadableImage: the image is corrupt.
            UserError: its annotation is damaged or does not fit.
        """
        file, name = self.images.file(index), self.images.names[index]
        image = open_rgb(file, name, self.images.exif_rotation)
        pixels = resize_and_crop(image, name, self.smallest)
        labels, annotated = self.masks.read(index, (image.height, image.width))
        return Example(pixels, labels, annotated)

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each image; see `content_hashes.hash_files`."""
        return self.images.content_hashes(cache_dir, only)

    def annotation_hashes(self, cache_dir: Path | None) -> tuple[str, ...]:
        """Returns for each image the sha256 of its annotation."""
        return self.masks.hashes(cache_dir)
