"""The segmenter 'annotations': hand-drawn label maps that a source provides.

Resampling to another grid is that of `data.label_maps.resample_nearest`.
"""

import dataclasses
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from jaxtyping import Bool, Int32

from jdissect.base.errors import UserError
from jdissect.data.label_maps import resample_nearest
from jdissect.data.loader import Batch
from jdissect.data.source import Source


class AnnotatedSource(Source, Protocol):
    """A source with annotations; satisfied by Broden, folders with masks, scenes."""

    @property
    def vocabulary_hash(self) -> str: ...

    def annotation_hashes(self, cache_dir: Path | None) -> tuple[str, ...]: ...


@dataclasses.dataclass(frozen=True)
class AnnotationSegmenter:
    """Provides the label maps of batches with annotations.

    Attributes:
        map_names: empty: a map shows concepts of any category.
        concepts: (name, primary category) by number.
        maps: number of label maps per image.
        mask_shape: (height, width) of the maps that `label_maps` returns.
        source: source of the annotations.
    """

    concepts: tuple[tuple[str, str], ...]
    maps: int
    mask_shape: tuple[int, int]
    source: AnnotatedSource
    map_names: tuple[str, ...] = ()

    def identity(self, cache_dir: Path | None) -> dict[str, object]:
        """Returns JSON that identifies the label maps."""
        return {
            "vocabulary": self.source.vocabulary_hash,
            "annotations": list(self.source.annotation_hashes(cache_dir)),
        }

    def label_maps(
        self, batch: Batch
    ) -> Int32[np.ndarray, "batch maps mask_height mask_width"]:
        """Returns the batch's label maps on the mask grid; 0 means no label."""
        assert batch.labels is not None  # of a source with annotations
        return resample_nearest(batch.labels, self.mask_shape)

    def annotated(self, batch: Batch) -> Bool[np.ndarray, "batch categories"]:
        """Returns the categories that an image counts for.

        They are determined on the annotation's own grid, so that they do not depend on
        whether a small region survives the resampling.
        """
        assert batch.annotated is not None  # of a source with annotations
        return batch.annotated


def open_annotations(source: Source, mask_size: int = 0) -> AnnotationSegmenter:
    """Opens the segmenter of a source's own annotations.

    Args:
        source: an annotated source, such as broden.
        mask_size: side of the mask grid in pixels; 0: the annotation's own grid.

    Raises:
        UserError: the source has no annotations, or `mask_size` is negative.
    """
    if source.annotations is None:
        raise UserError(
            "segmenter 'annotations' needs a source with annotations, such as "
            "config.data.source='broden'; for others use segmenter 'upernet'."
        )
    if mask_size < 0:
        raise UserError(
            f"config.mask_size is {mask_size}; give a side in pixels, or 0 for the "
            "annotation's own grid."
        )
    notes = source.annotations
    return AnnotationSegmenter(
        concepts=notes.concepts,
        maps=notes.maps,
        mask_shape=(mask_size, mask_size) if mask_size else notes.grid,
        source=cast(AnnotatedSource, source),
    )
