"""Sources of probe images: `open_source` for a config, `loader.batches` to read."""

import dataclasses
from typing import Any

from jdissect.data.broden import BrodenSource, open_broden
from jdissect.data.folder import FolderSource, open_folder
from jdissect.data.source import Annotations, Example, Source, UnreadableImage
from jdissect.errors import UserError

__all__ = [
    "Annotations",
    "BrodenSource",
    "Example",
    "FolderSource",
    "Source",
    "UnreadableImage",
    "open_source",
]


def _open_tfds(config: Any) -> Source:
    from jdissect.data.tfds import open_tfds  # its imports take seconds

    name = getattr(config, "name", "")
    return open_tfds(name, config.path, config.split, config.num_images)


def _open_scenes(config: Any) -> Source:
    from jdissect.data.scenes import open_scenes  # others need not load the drawing

    split = config.split or "probe"
    return open_scenes(split, config.num_images, prepared=config.path or None)


_OPENERS = {
    "scenes": _open_scenes,
    "folder": lambda config: open_folder(config.path, config.num_images),
    "broden": lambda config: open_broden(config.path, config.split, config.num_images),
    "tfds": _open_tfds,
}


def open_source(data_config: Any, smallest: int = 1) -> Source:
    """Opens the images of `config.data`.

    Args:
        data_config: has `source` ('scenes', 'folder', 'broden', 'tfds'), `path` (for
            scenes: of prepared pictures, or ''), `split` (scenes: '' is 'probe'),
            `num_images` (the first ones; 0: all) and, for tfds, `name`.
        smallest: side in pixels below which an image counts as unreadable, where the
            source enlarges images; those of broden are as they are.

    Raises:
        UserError: an unknown source, or one that cannot be opened.
    """
    name = data_config.source
    if name not in _OPENERS:
        raise UserError(
            f"config.data.source is {name!r}; it can be {', '.join(_OPENERS)}."
        )
    if data_config.num_images < 0:
        raise UserError(
            f"config.data.num_images is {data_config.num_images}; give how many images "
            "to take, or 0 for all."
        )
    source = _OPENERS[name](data_config)
    if hasattr(source, "smallest"):
        source = dataclasses.replace(source, smallest=smallest)
    return source
