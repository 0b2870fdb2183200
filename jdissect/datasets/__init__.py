"""Opens sources of probe images: `open_source` for a config's data."""

import dataclasses
from typing import Any

from jdissect.base.errors import UserError
from jdissect.data.source import Annotations, Example, Source, UnreadableImage
from jdissect.datasets.broden import BrodenSource, open_broden
from jdissect.datasets.coco import open_coco
from jdissect.datasets.folder import FolderSource, open_folder
from jdissect.datasets.masked import MaskedSource
from jdissect.datasets.masks import open_masks

__all__ = [
    "Annotations",
    "BrodenSource",
    "Example",
    "FolderSource",
    "MaskedSource",
    "Source",
    "UnreadableImage",
    "exif_rotation",
    "images_below",
    "open_source",
]


def exif_rotation(data_config: Any) -> bool:
    """Returns `config.data.exif_rotation`; False for configs that predate the key."""
    return bool(getattr(data_config, "exif_rotation", False))


def _open_tfds(config: Any) -> Source:
    from jdissect.datasets.tfds import open_tfds  # slow to import

    name = getattr(config, "name", "")
    return open_tfds(
        name, config.path, config.split, config.num_images, exif_rotation(config)
    )


def _open_scenes(config: Any) -> Source:
    from jdissect.scenes import open_scenes  # other sources do not need it

    split = config.split or "probe"
    return open_scenes(split, config.num_images, prepared=config.path or None)


def _open_folder(config: Any) -> Source:
    return open_folder(config.path, config.num_images, exif_rotation(config))


def _open_broden(config: Any) -> Source:
    if exif_rotation(config):
        raise UserError(
            "config.data.exif_rotation is set; source 'broden' does not rotate images, "
            "so that they stay aligned with their masks."
        )
    return open_broden(config.path, config.split, config.num_images)


def _open_masks(config: Any) -> Source:
    turned = exif_rotation(config)
    return open_masks(config.path, config.num_images, turned, _ignore(config))


def _ignore(config: Any) -> int:
    return getattr(config, "ignore", -1)  # older configs lack it


def _annotations(config: Any) -> str:
    return getattr(config, "annotations", "")  # older configs lack it


def _open_coco(config: Any) -> Source:
    turned = exif_rotation(config)
    return open_coco(config.path, _annotations(config), config.num_images, turned)


def _open_ade20k(config: Any) -> Source:
    from jdissect.datasets.ade20k import open_ade20k  # imports SciPy

    turned = exif_rotation(config)
    return open_ade20k(config.path, config.split, config.num_images, turned)


def _open_voc(config: Any) -> Source:
    from jdissect.datasets.pascal import open_voc  # imports SciPy

    return open_voc(config.path, config.split, config.num_images, exif_rotation(config))


def _open_pascal_context(config: Any) -> Source:
    from jdissect.datasets.pascal import open_pascal_context  # imports SciPy

    which = config.path, _annotations(config), config.split
    return open_pascal_context(*which, config.num_images, exif_rotation(config))


def _open_huggingface(config: Any) -> Source:
    from jdissect.datasets.huggingface import open_huggingface  # imports Arrow

    which = config.path, _annotations(config), config.split
    turned = exif_rotation(config)
    return open_huggingface(*which, config.num_images, turned, _ignore(config))


def _open_generator(config: Any) -> Source:
    from jdissect.datasets.generator import open_generator  # imports JAX

    if getattr(config, "workers", 0):
        raise UserError(
            f"config.data.workers is {config.workers}; the images of source "
            "'generator' are made in this process: leave it 0"
        )
    return open_generator(config.path, config.num_images, getattr(config, "seed", 0))


_OPENERS = {
    "scenes": _open_scenes,
    "folder": _open_folder,
    "broden": _open_broden,
    "masks": _open_masks,
    "coco": _open_coco,
    "ade20k": _open_ade20k,
    "voc": _open_voc,
    "pascal_context": _open_pascal_context,
    "huggingface": _open_huggingface,
    "tfds": _open_tfds,
    "generator": _open_generator,
}


# Sources with a folder's geometry: the folder in `path` that image names begin at.
_IMAGES_BELOW = {
    **{"folder": "", "masks": "images", "coco": "", "ade20k": "images"},
    **{"voc": "JPEGImages", "pascal_context": "JPEGImages"},
}


def images_below(source: str) -> str | None:
    """Returns the folder in `config.data.path` that a source's image names start from.

    None for a source whose images are not files, or not resized as a folder's.
    """
    return _IMAGES_BELOW.get(source)


def open_source(data_config: Any, smallest: int = 1) -> Source:
    """Opens the images of `config.data`.

    Args:
        data_config: has `source` (a key of `_OPENERS`), `path` (for
            scenes: the folder of prepared pictures, or ''; for a generator: its
            checkpoint folder), `split` (scenes: ''
            means 'probe'), `num_images` (takes the first ones; 0: all), `name` for
            tfds, and optionally `exif_rotation` (rotate photographs by their EXIF),
            `ignore` (masks: a number that means no label), `annotations` (coco: the
            JSON file; pascal_context: the folder of label maps; huggingface: the
            column of masks), `seed` (generator: seed of the latents).
        smallest: side in pixels below which an image counts as unreadable, in sources
            that enlarge images; broden uses images at their stored size.

    Raises:
        UserError: the source is unknown or cannot be opened.
    """
    name = data_config.source
    if name not in _OPENERS:
        raise UserError(f"config.data.source is {name!r}; use {', '.join(_OPENERS)}.")
    if data_config.num_images < 0:
        raise UserError(
            f"config.data.num_images is {data_config.num_images}; give a number "
            "of images, or 0 for all."
        )
    source: Any = _OPENERS[name](data_config)
    if hasattr(source, "smallest"):
        source = dataclasses.replace(source, smallest=smallest)
    return source
