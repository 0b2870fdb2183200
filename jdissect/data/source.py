"""Defines the interface of image sources, and the types that they share.

A source numbers its images 0 .. n-1 and reads one at a time, so that the loader can
read them from any thread or process in any order. Sources are plain picklable objects,
and nothing here imports JAX, so that worker processes start fast.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from jdissect.base.errors import UserError
from jdissect.base.printable import printable


class UnreadableImage(Exception):
    """One image is corrupt. The loader skips it, unless strict.

    Attributes:
        name: the image's name in its source.
        reason: short text on why it cannot be read.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that it can be pickled
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}"


def skipped_line(skipped: Sequence[tuple[str, str]], images: int = 0) -> str:
    """Returns a message: how many images were skipped, and why the first one.

    Args:
        skipped: (name, reason) of each skipped image, at least one.
        images: total number of images; 0 leaves it out of the message.
    """
    count = f"{len(skipped)} of {images}" if images else f"{len(skipped)}"
    noun = "image" if (images or len(skipped)) == 1 else "images"
    first = UnreadableImage(*skipped[0])
    return f"skipped {count} {noun} that could not be read, such as {first}"


def none_read(skipped: Sequence[tuple[str, str]]) -> UserError:
    """Returns the error for a source of which no image could be read.

    Args:
        skipped: (name, reason) of each image.
    """
    first = f", such as {UnreadableImage(*skipped[0])}" if skipped else ""
    return UserError(f"none of the images could be read{first}")


@dataclasses.dataclass(frozen=True)
class Example:
    """One image before normalization.

    Attributes:
        pixels: RGB, 0 .. 255, with the source's geometry applied.
        labels: label numbers that people gave to pixels, 0 for none; None if the
            source has no annotations.
        annotated: whether the image counts for a category: some pixel carries a
            number whose primary category it is (the 2017 code's rule). None without
            annotations.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    labels: Int32[np.ndarray, "maps grid_height grid_width"] | None
    annotated: Bool[np.ndarray, " categories"] | None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Describes a source's label maps.

    Attributes:
        concepts: (name, primary category) of each number from 0; ('-', '') for 0
            and for numbers that the vocabulary leaves out.
        maps: label maps per image; a pixel may carry a number in each of them.
        grid: (height, width) of the label maps.
    """

    concepts: tuple[tuple[str, str], ...]
    maps: int
    grid: tuple[int, int]


class ImageNames(Protocol):
    """Names by index: a tuple, or `Names`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> str: ...


class Readable(Protocol):
    """Images by index, as the loader reads them.

    The folder, Broden, TFDS and scene sources implement it.

    Attributes:
        names: each image's identity, in index order.
        image_shape: (height, width) of every image's pixels.
        annotations: None if the source has no label maps.
    """

    @property
    def names(self) -> ImageNames: ...

    @property
    def image_shape(self) -> tuple[int, int]: ...

    @property
    def annotations(self) -> Annotations | None: ...

    def read(self, index: int) -> Example:
        """Reads image `index`.

        Raises:
            UnreadableImage: this image is corrupt.
            UserError: the source itself is invalid.
        """
        ...


class Source(Readable, Protocol):
    """Images by index, with names that fit in memory and hashes of their content."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns the sha256 of each image's encoded bytes, in hex.

        Args:
            cache_dir: folder for the manifest that avoids re-reading; None keeps none.
            only: the images to hash.
        """
        ...


class Names:
    """A reordered sequence of names that does not build a list."""

    def __init__(self, names: ImageNames, order: Int[np.ndarray, " image"]):
        self._all, self._order = names, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> str:
        return self._all[self._order[index]]


@dataclasses.dataclass(frozen=True)
class Subset:
    """A selection of a source's images, in an order of its own, as a source.

    Attributes:
        source: the source of all images.
        order: indices of the selected images.
    """

    source: Readable
    order: Int[np.ndarray, " image"]

    @property
    def names(self) -> Names:
        return Names(self.source.names, self.order)

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.source.image_shape

    @property
    def annotations(self) -> Annotations | None:
        return self.source.annotations

    def read(self, index: int) -> Example:
        """Reads the image at position `index`; raises what the source raises."""
        return self.source.read(int(self.order[index]))


def share(
    order: Sequence[int] | Int[np.ndarray, " image"],
    size: int,
    process: int = 0,
    processes: int = 1,
) -> tuple[Int[np.ndarray, " image"], int]:
    """Returns one process's shard of images that all processes visit in one order.

    A step takes the next `size` x `processes` images, `size` of them per process.

    Args:
        order: indices of the images.
        size: images per step and process.
        process: index of the process.
        processes: number of processes.

    Returns:
        the indices of the process's images, and the number of steps.
    """
    numbers = np.asarray(order, np.int64)
    steps = -(-len(numbers) // (size * processes))
    first = np.arange(steps)[:, None] * size * processes + process * size
    places = (first + np.arange(size)).reshape(-1)
    return numbers[places[places < len(numbers)]], steps
