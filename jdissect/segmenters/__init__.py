"""Segmenters: from images to label maps. A segmenter offers

concepts: (name, category) by number.
mask_shape: (height, width) of its label maps.
label_maps(batch): int[image, map, height, width].
annotated(batch): bool[image, category], or None: every image counts for all.
identity(cache_dir): JSON that changes when a label map could.
"""

from typing import Any

from jdissect.data.source import Source
from jdissect.errors import UserError
from jdissect.segmenters.annotations import open_annotations

NAMES = ("annotations", "upernet", "colornames")


def open_segmenter(config: Any, source: Source):
    """The segmenter of `config.segmenter` for a source's images.

    Raises:
      UserError: an unknown name, or one that cannot label these images.
    """
    name = config.segmenter.name
    if name == "annotations":
        return open_annotations(source, config.mask_size)
    if name in NAMES:
        raise UserError(f"segmenter '{name}' is not available yet; use 'annotations'")
    raise UserError(f"config.segmenter.name is {name!r}; it can be {', '.join(NAMES)}")
