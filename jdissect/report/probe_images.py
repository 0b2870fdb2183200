"""The images of a finished run, read once more."""

import sys
from typing import TYPE_CHECKING

from jdissect.data import UnreadableImage, open_source
from jdissect.data.source import Source
from jdissect.errors import UserError
from jdissect.segmenters import smallest_image

if TYPE_CHECKING:
    from jdissect.runs import StoredRun


def open_images(run: "StoredRun", source: Source | None = None) -> Source | None:
    """The source of a run's images; one line of warning and None where it is gone.

    Args:
      run: a finished one.
      source: where it is open already.
    """
    try:
        if source is None:
            settings = run.settings()
            smallest = smallest_image(settings.segmenter.name)
            source = open_source(settings.data, smallest)
        if tuple(source.names) != tuple(run.names):
            raise UserError("the images there are others by now")
    except (UserError, OSError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        print(
            f"warning: no pictures in the report of {run.path}: {reason}",
            file=sys.stderr,
        )
        return None
    return source


def read_pixels(source: Source, index: int):
    """uint8[height, width, 3], RGB as the network saw it; None: cannot be read."""
    if not 0 <= index < len(source.names):
        return None
    try:
        return source.read(index).pixels
    except (UnreadableImage, OSError):
        return None
