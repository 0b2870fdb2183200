"""Counts units and concepts that are given as masks, without a run."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from jdissect.base.errors import UserError
from jdissect.dissection.firing import OnImage
from jdissect.formulas.atoms import Counts, count
from jdissect.results.group_counts import blocks_of


def of_masks(
    fires: Bool[np.ndarray, "unit image height width"],
    labels: Int[np.ndarray, "image map height width"],
    categories: Sequence[str],
    annotated: Bool[np.ndarray, "image category"] | None = None,
) -> Counts:
    """Counts masks of units against label maps, for `search.explain`.

    Args:
      fires: where each unit fires.
      labels: column + 1 of the concept at each pixel, in each map; 0 for none.
      categories: category of each concept, by column.
      annotated: whether each image counts for each category, in order of their first
        appearance in `categories`; by default all do.

    Raises:
      UserError: shapes or numbers do not fit together.
    """
    fires, labels = np.asarray(fires), np.asarray(labels)
    if (
        fires.ndim != 4
        or labels.ndim != 4
        or fires.shape[1:]
        != (
            len(labels),
            *labels.shape[2:],
        )
    ):
        raise UserError(
            f"masks are [unit, image, height, width], {list(fires.shape)} is not; "
            f"label maps are [image, map, height, width], here {list(labels.shape)}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= len(categories):
        raise UserError(
            f"label maps have numbers {labels.min()} to {labels.max()}, but there are "
            f"{len(categories)} concepts"
        )
    names = list(dict.fromkeys(categories))
    if annotated is None:
        annotated = np.ones((len(labels), len(names)), bool)
    category = np.array([0, *(names.index(each) for each in categories)])
    blocks = blocks_of([str(number) for number in range(len(labels))])

    def images() -> Iterator[OnImage]:
        for index, maps in enumerate(labels):
            counts = annotated[index][category[maps]]
            unit, pixel = np.nonzero(fires[:, index].reshape(len(fires), -1))
            yield OnImage(
                index,
                np.where(counts, maps, 0),
                np.asarray(annotated[index], bool),
                unit.astype(np.int32),
                pixel.astype(np.int32),
            )

    return count(images(), blocks, categories, len(fires))
