"""The segmenter 'annotations': label maps that people drew, as the source has them.

Resampling to another grid is by nearest neighbour: target row y of S takes source row
floor((y + 0.5) * H / S) of H, in integer arithmetic.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from jdissect.base.errors import UserError
from jdissect.data.loader import Batch
from jdissect.data.source import Source


@dataclasses.dataclass(frozen=True)
class AnnotationSegmenter:
    """Label maps of batches that carry annotations.

    Attributes:
        map_names: none: a map shows concepts of any category.
        concepts: (name, primary category) by number.
        maps: label maps an image.
        mask_shape: (height, width) of the maps that `label_maps` gives.
        source: where the annotations are.
    """

    concepts: tuple[tuple[str, str], ...]
    maps: int
    mask_shape: tuple[int, int]
    source: Source
    map_names: tuple[str, ...] = ()

    def identity(self, cache_dir: Path | None) -> dict[str, object]:
        """What the label maps come from, as JSON."""
        return {
            "vocabulary": self.source.vocabulary_hash,
            "annotations": list(self.source.annotation_hashes(cache_dir)),
        }

    def label_maps(
        self, batch: Batch
    ) -> Int32[np.ndarray, "batch maps mask_height mask_width"]:
        """The batch's label maps on the mask grid; 0 is nothing."""
        return resample_nearest(batch.labels, self.mask_shape)

    def annotated(self, batch: Batch) -> Bool[np.ndarray, "batch categories"]:
        """Which categories an image counts for.

        It is decided on the annotation's own grid: that an image was annotated does
        not depend on whether a small region survives the resampling.
        """
        return batch.annotated


def open_annotations(source: Source, mask_size: int = 0) -> AnnotationSegmenter:
    """The segmenter of a source's own annotations.

    Args:
        source: an annotated source, such as broden.
        mask_size: side of the mask grid, pixels; 0: the annotation's own grid.

    Raises:
        UserError: the source has no annotations, or `mask_size` is negative.
    """
    if source.annotations is None:
        raise UserError(
            "segmenter 'annotations' needs a source with annotations, such as "
            "config.data.source='broden'; for others choose segmenter 'upernet'."
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
        source=source,
    )


def resample_nearest(
    labels: Int32[np.ndarray, "*leading height width"], shape: tuple[int, int]
) -> Int32[np.ndarray, "*leading new_height new_width"]:
    """Nearest-neighbour resampling of the last two axes to `shape`."""
    rows, columns = (
        (2 * np.arange(target) + 1) * size // (2 * target)
        for target, size in zip(shape, labels.shape[-2:], strict=True)
    )
    return labels[..., rows[:, None], columns]
