"""What a source of probe images is: the types that all of `jdissect.data` shares.

A source knows its images by index 0 .. n-1 and reads one at a time, so that the
loader may read them from any thread or process in any order. Sources are plain
picklable objects, and nothing here imports JAX: worker processes start fast.
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
    """One image is corrupt; the others are not. The loader skips it, unless strict.

    Attributes:
        name: the image's name in its source.
        reason: why it cannot be read, in a few words.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that it survives pickling
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}"


def skipped_line(skipped: Sequence[tuple[str, str]], images: int = 0) -> str:
    """A line for a person: how many images were skipped, and why the first.

    Args:
        skipped: (name, reason) of each, at least one.
        images: how many there are in all; 0: not to be said.
    """
    count = f"{len(skipped)} of {images}" if images else f"{len(skipped)}"
    noun = "image" if (images or len(skipped)) == 1 else "images"
    first = UnreadableImage(*skipped[0])
    return f"skipped {count} {noun} that could not be read, such as {first}"


def none_read(skipped: Sequence[tuple[str, str]]) -> UserError:
    """The error where every image was skipped, which names the first with its reason.

    Args:
        skipped: (name, reason) of each.
    """
    first = f", such as {UnreadableImage(*skipped[0])}" if skipped else ""
    return UserError(f"none of the images could be read{first}")


@dataclasses.dataclass(frozen=True)
class Example:
    """One image, as a network is to see it before normalization.

    Attributes:
        pixels: RGB, 0 .. 255, with the source's geometry applied.
        labels: the numbers people gave to pixels, 0 where there is none; None where
            the source has no annotations.
        annotated: whether the image counts for a category: some pixel carries a
            number whose primary category it is (the 2017 code's rule). None without
            annotations.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    labels: Int32[np.ndarray, "maps grid_height grid_width"] | None
    annotated: Bool[np.ndarray, " categories"] | None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a source's label maps mean.

    Attributes:
        concepts: (name, primary category) of each number from 0; ('-', '') for 0
            and for numbers that the vocabulary leaves out.
        maps: label maps an image; a pixel may carry a number in each.
        grid: (height, width) of the label maps.
    """

    concepts: tuple[tuple[str, str], ...]
    maps: int
    grid: tuple[int, int]


class Source(Protocol):
    """Images by index; satisfied by the folder, Broden and TFDS sources.

    Attributes:
        names: an image's identity, in index order.
        image_shape: (height, width) of every image's pixels.
        annotations: None where people labelled nothing.
    """

    names: tuple[str, ...]
    image_shape: tuple[int, int]
    annotations: Annotations | None

    def read(self, index: int) -> Example:
        """Reads image `index`.

        Raises:
            UnreadableImage: this image is corrupt.
            UserError: the source itself is not what it should be.
        """
        ...

    def content_hashes(
        self, cache_dir: Path | None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """The sha256 of each image's encoded bytes, in hexadecimal.

        Args:
            cache_dir: where to keep what spares re-reading; None: nowhere.
            only: of these images.
        """
        ...


class Names:
    """Names in an order, without making a list of them."""

    def __init__(self, names: Sequence[str], order: Sequence[int]):
        self._all, self._order = names, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> str:
        return self._all[self._order[index]]


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some images of a source, in an order of their own, as a source to read.

    Attributes:
        source: of all images.
        order: numbers of those that are wanted.
    """

    source: Source
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
        """Reads the image in place `index`; raises what the source raises."""
        return self.source.read(int(self.order[index]))


def share(
    order: Sequence[int], size: int, process: int = 0, processes: int = 1
) -> tuple[Int[np.ndarray, " image"], int]:
    """A process's part of images that all processes visit in one order.

    A step takes the next `size` x `processes` images, each process its `size` of them.

    Args:
        order: numbers of the images.
        size: images a step and process.
        process: which one.
        processes: how many there are.

    Returns:
        the numbers of its images, and how many steps there are.
    """
    order = np.asarray(order, np.int64)
    steps = -(-len(order) // (size * processes))
    first = np.arange(steps)[:, None] * size * processes + process * size
    places = (first + np.arange(size)).reshape(-1)
    return order[places[places < len(order)]], steps
