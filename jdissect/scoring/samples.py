"""What the scores of activations read: feature maps with the concepts of each pixel."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.concepts import Concepts, category_of_columns, column_table
from jdissect.ops import float_keys


class Vocabulary:
    """Maps label numbers to columns, by the rule for annotated categories.

    Args:
      concepts: (name, category) by number.
    """

    def __init__(self, concepts: Concepts):
        self._category = category_of_columns(concepts)
        self._column_of = column_table(concepts)

    def batch(
        self,
        features: Float[np.ndarray, "image height width unit"],
        labels: Int[np.ndarray, "image map mask_height mask_width"],
        annotated: Bool[np.ndarray, "image category"] | None,
    ) -> "Batch":
        """Returns images with their columns.

        Args:
          features: feature maps of any float type.
          labels: concept numbers, 0 for no label.
          annotated: whether each image counts for each category; None: for all.
        """
        if annotated is None:
            every = self._category.max(initial=-1) + 1
            annotated = np.ones((len(labels), every), bool)
        annotated = np.asarray(annotated, bool)
        found = self._column_of[labels]
        counts = annotated[:, self._category]  # [image, column]
        image = np.arange(len(labels))[:, None, None, None]
        found[(found > 0) & ~counts[image, found - 1]] = 0
        maps = float_keys.canonical_host(np.asarray(features, np.float32))
        return Batch(maps, found, annotated)


class Batch(NamedTuple):
    """Some images, all of which count.

    Attributes:
      features: float32[image, height, width, unit], feature maps before upsampling;
        -0 and subnormals are +0 (`float_keys.canonical_host`).
      columns: int[image, map, mask height, mask width], column + 1 of the concept at
        each pixel, 0 for none; without the concepts of a category for which the image
        does not count.
      annotated: bool[image, category], whether the image counts for each category.
    """

    features: Float[np.ndarray, "image height width unit"]
    columns: Int[np.ndarray, "image map mask_height mask_width"]
    annotated: Bool[np.ndarray, "image category"]


def planes(
    image: Int[np.ndarray, "map height width"],
) -> tuple[Int[np.ndarray, " present"], Bool[np.ndarray, "present height width"]]:
    """Returns the columns in an image, ascending, and where each of them is."""
    present = np.unique(image)
    present = present[present > 0]
    at = (image[None] == present[:, None, None, None]).any(axis=1)
    return present - 1, at
