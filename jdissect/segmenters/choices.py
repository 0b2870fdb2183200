"""Segmenters as a caller of the library names them, with their options.

jdissect.dissect(..., segmenter="colornames")
jdissect.dissect(..., segmenter=jdissect.segmenters.UPerNet("weights/upernet"))
"""

import dataclasses
import os
from typing import Any, ClassVar

import ml_collections


@dataclasses.dataclass(frozen=True)
class UPerNet:
    """Labels photographs with objects, parts, materials and colors, by networks.

    Label maps are kept in the cache that the command line uses.

    Attributes:
      folder: a converted UPerNet (`converters.upernet`), or 'shipped:upernet', which
        knows the drawn scenes.
      color: a converted color network, 'colornames', or '' for no colors.
      quarters: which objects have top, bottom, left and right halves: 'netdissect' (all
        but an image's last, as in the original), 'all' or 'none'.
      mask_size: side of the label maps in pixels; 0: 56.
      batch_size: images per device and call.
    """

    name: ClassVar[str] = "upernet"
    folder: str | os.PathLike
    color: str | os.PathLike = ""
    quarters: str = "netdissect"
    mask_size: int = 0
    batch_size: int = 8


@dataclasses.dataclass(frozen=True)
class ColorNames:
    """Labels pixels with the eleven basic color terms; needs no weights.

    Attributes:
      mask_size: side of the label maps in pixels; 0: 56.
    """

    name: ClassVar[str] = "colornames"
    mask_size: int = 0


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The label maps that come with the images of a source, such as Broden's.

    Attributes:
      mask_size: side of the label maps in pixels; 0: as stored.
    """

    name: ClassVar[str] = "annotations"
    mask_size: int = 0


Choice = UPerNet | ColorNames | Annotations
BY_NAME = {choice.name: choice for choice in (ColorNames, Annotations)}


def as_config(choice: Choice, max_gb: float) -> Any:
    """Returns the config for `open_segmenter`.

    Args:
      choice: the segmenter.
      max_gb: limit for the cached label maps in GB.
    """
    given = dataclasses.asdict(choice)
    return ml_collections.ConfigDict(
        {
            "segmenter": {
                "name": choice.name,
                "upernet": os.fspath(given.get("folder", "")),
                "color": os.fspath(given.get("color", "")),
                "quarters": given.get("quarters", "netdissect"),
                "batch_size": given.get("batch_size", 8),
            },
            "mask_size": choice.mask_size,
            "dtype": "float32",
            "cache": {"max_gb": max_gb},
        }
    )
