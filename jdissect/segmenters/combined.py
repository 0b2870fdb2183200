"""Combines two segmenters: the second's maps and concepts follow the first's."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jdissect.data.loader import Batch


@dataclasses.dataclass(frozen=True)
class CombinedSegmenter:
    """Label maps of two segmenters that label every image for all their concepts.

    The second's numbers follow the first's, except that 0 means no label in both.

    Attributes:
      first, second: the segmenters, of equal `mask_shape`.
    """

    first: Any
    second: Any

    @property
    def concepts(self) -> tuple[tuple[str, str], ...]:
        """(name, category) by number."""
        return (*self.first.concepts, *self.second.concepts[1:])

    @property
    def map_names(self) -> tuple[str, ...]:
        return (*self.first.map_names, *self.second.map_names)

    @property
    def mask_shape(self) -> tuple[int, int]:
        return self.first.mask_shape

    def identity(self, cache_dir: Path | None) -> dict[str, Any]:
        """Returns the identities of both, as JSON."""
        first, second = (s.identity(cache_dir) for s in (self.first, self.second))
        return {"first": first, "second": second}

    def annotated(self, batch: Batch) -> None:
        """Returns None: every image counts for every category."""
        del batch

    def label_maps(
        self, batch: Batch
    ) -> Int[np.ndarray, "batch maps mask_height mask_width"]:
        """Returns the batch's label maps; zeros for images that are not valid."""
        first, second = (s.label_maps(batch) for s in (self.first, self.second))
        moved = np.where(second > 0, second + len(self.first.concepts) - 1, 0)
        return np.concatenate([first, moved.astype(first.dtype)], axis=1)
