"""Reads a finished run's images again, and only if they are the ones that were counted.

Images drawn with a result must be the result's own: each image's content is hashed
before it is drawn, and a missing or changed image is not drawn.

A run directory may come from someone else, and its config names places. A local folder
named there is searched only for files with exactly the names and contents that the run
lists; an object store or a network share is contacted only if the user names it. A
generator there is run if its weights are those of the run.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np
from jaxtyping import UInt8

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.data.source import Annotations, Readable, Source
from jdissect.datasets import Example, UnreadableImage, images_below, open_source
from jdissect.datasets.folder import FolderSource
from jdissect.runtime import machine
from jdissect.segmenters import smallest_image

if TYPE_CHECKING:
    from jdissect.results.finished_run import StoredRun

_KEYS: Mapping[str, Any] = {
    **{"path": "", "name": "", "split": "", "num_images": 0, "seed": 0},
}
_CANNOT = (UserError, OSError, AttributeError, KeyError, TypeError, ValueError)


class ProbeImages:
    """A run's images by index, as a source that contains only the counted ones.

    Attributes:
      lost: indices of requested images that no longer exist.
    """

    annotations: Annotations | None = None

    def __init__(self, run: "StoredRun", source: Source, anew: bool = False):
        """Prepares the source without comparing any image yet.

        Args:
          run: a finished run.
          source: former source of its images.
          anew: whether an image's name determines its content.

        Raises:
          UserError: the run has no content hashes, and the images differ.
        """
        self._run, self._source = run, source
        self.names = tuple(run.names)
        self.lost: set[int] = set()
        self._hashes = run.hashes or _hashes_of_old(run, source, anew)

    @property
    def image_shape(self) -> tuple[int, int]:
        return self._source.image_shape

    @functools.cached_property
    def _place(self) -> Mapping[str, int]:
        """Maps names to image numbers in the source."""
        return {name: place for place, name in enumerate(self._source.names)}

    def content_hashes(self, cache_dir=None, only: slice = slice(None)):
        """Returns the run's content hashes."""
        return tuple(self._hashes[only])

    def read(self, index: int) -> Example:
        """Reads the image that was counted.

        Raises:
          UnreadableImage: it is missing, or another one has its name; see `lost`.
        """
        try:
            return self._counted(index)
        except (UnreadableImage, UserError, OSError):
            self.lost.add(index)
            raise UnreadableImage(self.names[index], "gone or changed") from None

    def _counted(self, index: int) -> Example:
        name = self.names[index]
        if (place := self._place.get(name)) is None:
            raise UnreadableImage(name, "gone")
        found = self._source.content_hashes(None, slice(place, place + 1))
        if found != (self._hashes[index],):
            raise UnreadableImage(name, "changed")
        return self._source.read(place)

    def tell(self) -> None:
        """Prints one line to stderr if requested images no longer exist."""
        if self.lost:
            name = self.names[min(self.lost)]
            many = f"{len(self.lost)} image{'s' if len(self.lost) > 1 else ''}"
            print(
                f"warning: {many} of {self._run.path} not drawn, such as "
                f"{ascii(name)}: missing, or changed since the run",
                file=sys.stderr,
            )


def open_images(
    run: "StoredRun", source: Source | None = None, data_path: str = ""
) -> ProbeImages | None:
    """Opens a run's images; warns in one line and returns None if that fails.

    Args:
      run: a finished run.
      source: source of the images if it is already open.
      data_path: folder of the images given by the user; '' uses the run's config.
    """
    try:
        return open_counted(run, source, data_path)
    except UserError as error:
        reason = " ".join(str(error).split())
        print(
            f"warning: no pictures in the report of {run.path}: {reason}",
            file=sys.stderr,
        )
        return None


def open_counted(
    run: "StoredRun", source: Source | None = None, data_path: str = ""
) -> ProbeImages:
    """Opens a run's images, or raises the reason why not.

    Raises:
      UserError: the images cannot be opened, or the run does not identify them.
    """
    if source is not None:
        return ProbeImages(run, source)
    if not run.names:
        raise UserError("the result does not identify its images")
    try:
        settings = run.settings()
        smallest = smallest_image(settings.segmenter.name)
        data = _data_config(run, data_path)
        # Scenes are drawn again: prepared files on a disk could be anything.
        anew = data.source == "scenes"
        if anew:
            data.path = ""
        if data.source == "huggingface":
            data.annotations = ""  # the images alone
        below = images_below(data.source)
        if below is not None and (data.source != "folder" or not data_path):
            return ProbeImages(run, _named_files(run, data, below, smallest))
        return ProbeImages(run, open_source(data, smallest), anew)
    except UserError:
        raise
    except _CANNOT as error:
        text = f"{run.folder / 'config.json'} cannot be used: {error}"
        raise UserError(" ".join(text.split())) from None


def _data_config(run: "StoredRun", data_path: str) -> ml_collections.ConfigDict:
    """Returns the run's `config.data`, with a path that may be used."""
    data = dict(_KEYS) | dict(run.config["data"])
    for key, default in (*_KEYS.items(), ("source", "")):
        if type(data[key]) is not type(default):
            raise TypeError(f"data.{key} is {data[key]!r:.60}")
    path = data["path"]
    if data_path:
        data["path"] = data_path
    elif paths.is_elsewhere(path):
        raise UserError(
            f"config.json says that they are at {path}, which is contacted only if you "
            f"name it: --data_path={path}"
        )
    return ml_collections.ConfigDict(data)


def _named_files(
    run: "StoredRun", data: Any, below: str, smallest: int
) -> FolderSource:
    """Opens the run's images in a folder that only the run names, without listing it.

    A name that leads out of the folder, or is not a file, is left out.
    """
    root = paths.absolute(paths.to_path(data.path).expanduser()) / below
    if not data.path or not root.is_dir():
        raise UserError(f"folder {root} does not exist; give the images by --data_path")
    names = [n for n in run.names if _is_within(n) and (root / n).is_file()]
    files = tuple(str(root / name) for name in names)
    # Geometry settings of the config, under the source's names for them.
    geometry = {
        field.name: data[field.name]
        for field in dataclasses.fields(FolderSource)
        if isinstance(field.default, bool) and isinstance(data.get(field.name), bool)
    }
    return FolderSource(root, tuple(names), files, smallest=smallest, **geometry)


def _is_within(name: str) -> bool:
    path = pathlib.PurePath(name)
    return not path.is_absolute() and not path.drive and ".." not in path.parts


def _hashes_of_old(run: "StoredRun", source: Source, anew: bool) -> tuple[str, ...]:
    """Returns hashes for a run without them in images.csv, by its identity's hash."""
    from jdissect.base.identity import digest

    if anew:
        known = dict(zip(source.names, source.content_hashes(None), strict=True))
        return tuple(known.get(name, "") for name in run.names)
    if tuple(source.names) == tuple(run.names):
        hashes = source.content_hashes(machine.cache_dir(""))
        pairs = [list(pair) for pair in zip(source.names, hashes, strict=True)]
        if digest(pairs) == run.identity.get("images"):
            return tuple(hashes)
    raise UserError(
        "the images have changed, or cannot be checked because an older "
        "version made the run; run again with --overwrite"
    )


def read_pixels(
    source: Readable, index: int
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Returns RGB as the network saw it, uint8[height, width, 3]; or None."""
    if not 0 <= index < len(source.names):
        return None
    try:
        return source.read(index).pixels
    except (UnreadableImage, OSError):
        return None
