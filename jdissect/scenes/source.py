"""Opens the source 'scenes': pictures drawn on reading, with exact label maps."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from jdissect.base import paths
from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.data.content_hashes import hash_texts
from jdissect.data.source import Annotations, Example
from jdissect.scenes.prepared import Prepared, open_prepared
from jdissect.scenes.render import label, render
from jdissect.scenes.splits import resolve, split_number
from jdissect.scenes.world import CLASSES, CONCEPTS, GENERATOR_VERSION, MAPS, SIDE

_ANNOTATIONS = Annotations(concepts=CONCEPTS, maps=len(MAPS), grid=(SIDE, SIDE))
_CATEGORY_OF_NUMBER = np.array(
    [
        [category == column for column in categories(CONCEPTS)]
        for _, category in CONCEPTS
    ]
)


@dataclasses.dataclass(frozen=True)
class ScenesSource:
    """The first `num_images` pictures of a split, whose sequence is endless.

    Attributes:
        split: 'train', 'validation' or 'probe'; no picture is in two.
        num_images: number of pictures.
        seed: seed of the world; another seed gives other pictures.
        prepared: pictures on disk; the others are drawn on reading.
    """

    split: str
    num_images: int
    seed: int = 0
    prepared: Prepared | None = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """'scenes/VERSION/SPLIT/INDEX', with the seed before INDEX unless it is 0."""
        seed = f"seed-{self.seed}/" if self.seed else ""
        stem = f"scenes/{GENERATOR_VERSION}/{self.split}/{seed}"
        return tuple(f"{stem}{index}" for index in range(self.num_images))

    @property
    def image_shape(self) -> tuple[int, int]:
        """(112, 112)."""
        return (SIDE, SIDE)

    @property
    def annotations(self) -> Annotations:
        """Four maps (object, part, material, color) of the pictures' size."""
        return _ANNOTATIONS

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return CLASSES

    def label(self, index: int) -> int:
        """Returns the class of picture `index` without drawing it."""
        return label(self.seed, split_number(self.split), self._checked(index))

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, " image"]:
        """Class of every picture; the classes' counts differ by at most one."""
        return np.array([self.label(n) for n in range(self.num_images)], np.int32)

    def read(self, index: int) -> Example:
        """Returns picture `index` with its label maps; same bits drawn or prepared."""
        index = self._checked(index)
        if self.prepared is not None and index < self.prepared.count:
            pixels, maps = self.prepared.read(index)
        else:
            pixels, maps = render(self.seed, split_number(self.split), index)
        labels = maps.astype(np.int32)
        return Example(pixels, labels, _annotated(labels))

    def content_hashes(
        self, cache_dir: Path | None = None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns for each picture the sha256 of its drawing inputs; draws nothing."""
        del cache_dir
        return self._hashes("pixels", only)

    def annotation_hashes(self, cache_dir: Path | None = None) -> tuple[str, ...]:
        """Like `content_hashes`, for the label maps."""
        del cache_dir
        return self._hashes("labels")

    @property
    def vocabulary_hash(self) -> str:
        """sha256 over the meaning of the numbers."""
        return hash_texts([text for concept in CONCEPTS for text in concept])

    def _hashes(self, what: str, only: slice = slice(None)) -> tuple[str, ...]:
        key = ["scenes", str(GENERATOR_VERSION), str(self.seed), self.split, what]
        return tuple(hash_texts([*key, str(n)]) for n in range(self.num_images)[only])

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.num_images:
            raise IndexError(f"image {index} of {self.num_images}")
        return int(index)

    def __getstate__(self) -> dict[str, object]:
        # Names and labels are recomputed where needed, so that workers start fast.
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields}


def open_scenes(
    split: str = "probe",
    num_images: int = 0,
    seed: int = 0,
    prepared: Path | str | None = None,
) -> ScenesSource:
    """Opens a split of the procedural world.

    Args:
        split: 'train', 'validation' or 'probe'.
        num_images: number of pictures, from the first; 0: as many as `SPLITS` says.
            Any number is possible.
        seed: seed of the world, >= 0.
        prepared: folder of `prepare`; its pictures of this split and seed are read,
            others are drawn.

    Raises:
        UserError: the split or folder does not exist, a number is negative, or the
            pictures were prepared by another version of the generator.
    """
    count = resolve(split, num_images, seed)
    if prepared is None:
        return ScenesSource(split, count, seed)
    # Prepared pictures are memory-mapped, so they must be local.
    root = paths.local(prepared, "config.data.path of scenes").expanduser()
    if not root.is_dir():
        raise UserError(
            f"config.data.path: {root} does not exist; prepare pictures there, or "
            "leave the path empty to have them drawn."
        )
    return ScenesSource(split, count, seed, open_prepared(root, split, seed))


def _annotated(
    labels: Int32[np.ndarray, "maps height width"],
) -> Bool[np.ndarray, "categories"]:
    """Returns the categories to which some pixel's number belongs."""
    present = np.flatnonzero(np.bincount(labels.ravel()))
    return np.asarray(_CATEGORY_OF_NUMBER[present].any(axis=0))
