"""The images of a finished run, read once more, and only as they were counted.

What is drawn under a result must be what the result is of: each image's content is
hashed before it is drawn, and one that is gone or has another content is not drawn.

A run directory may also be from somebody else, and its config names places. Of these a
folder of this machine is looked into, for files that have the very names and contents
that the run lists; an object store or a network share is not contacted unless the
person at the keyboard has named it.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_collections

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.data.source import Annotations, Source
from jdissect.datasets import Example, UnreadableImage, open_source
from jdissect.datasets.folder import FolderSource
from jdissect.runtime import machine
from jdissect.segmenters import smallest_image

if TYPE_CHECKING:
    from jdissect.results.finished_run import StoredRun

_KEYS: Mapping[str, Any] = {"path": "", "name": "", "split": "", "num_images": 0}
_CANNOT = (UserError, OSError, AttributeError, KeyError, TypeError, ValueError)


class ProbeImages:
    """A run's images by index, as a source that has only those that were counted.

    Attributes:
      lost: indices of images that were asked for and are not there any more.
    """

    annotations: Annotations | None = None

    def __init__(self, run: "StoredRun", source: Source, anew: bool = False):
        """Compares no image yet.

        Args:
          run: a finished one.
          source: where its images were.
          anew: whether a name says all of an image's content.

        Raises:
          UserError: the run has no content hashes, and the images are others.
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
        """An image's number in the source by its name."""
        return {name: place for place, name in enumerate(self._source.names)}

    def content_hashes(self, cache_dir=None, only: slice = slice(None)):
        """Those of the run."""
        return tuple(self._hashes[only])

    def read(self, index: int) -> Example:
        """The image that was counted.

        Raises:
          UnreadableImage: it is gone, or another one has its name; see `lost`.
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
        """One line to stderr, if images were asked for that are not there."""
        if self.lost:
            name = self.names[min(self.lost)]
            many = f"{len(self.lost)} image{'s' if len(self.lost) > 1 else ''}"
            print(
                f"warning: {many} of {self._run.path} not drawn, such as "
                f"{ascii(name)}: gone, or not what was counted",
                file=sys.stderr,
            )


def open_images(
    run: "StoredRun", source: Source | None = None, data_path: str = ""
) -> ProbeImages | None:
    """A run's images; one line of warning and None where there are none.

    Args:
      run: a finished one.
      source: where it is open already.
      data_path: where they are, as the user gave it; '' is where the run's config says.
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
    """The same, or the reason.

    Raises:
      UserError: the images cannot be opened, or the run does not say which they are.
    """
    if source is not None:
        return ProbeImages(run, source)
    if not run.names:
        raise UserError("the result does not say of which images it is")
    try:
        settings = run.settings()
        smallest = smallest_image(settings.segmenter.name)
        data = _data_config(run, data_path)
        # Scenes are drawn: what lies prepared on a disk could be anything.
        anew = data.source == "scenes"
        if anew:
            data.path = ""
        if data.source == "folder" and not data_path:
            return ProbeImages(run, _named_files(run, data, smallest))
        return ProbeImages(run, open_source(data, smallest), anew)
    except UserError:
        raise
    except _CANNOT as error:
        text = f"{run.folder / 'config.json'} cannot be used: {error}"
        raise UserError(" ".join(text.split())) from None


def _data_config(run: "StoredRun", data_path: str) -> ml_collections.ConfigDict:
    """`config.data` of the run, with the path that may be used."""
    data = dict(_KEYS) | dict(run.config["data"])
    for key, default in (*_KEYS.items(), ("source", "")):
        if type(data[key]) is not type(default):
            raise TypeError(f"data.{key} is {data[key]!r:.60}")
    path = data["path"]
    if data_path:
        data["path"] = data_path
    elif paths.is_elsewhere(path):
        raise UserError(
            f"config.json says that they are at {path}, which is not asked unless you "
            f"name it: --data_path={path}"
        )
    return ml_collections.ConfigDict(data)


def _named_files(run: "StoredRun", data: Any, smallest: int) -> FolderSource:
    """The run's images in a folder that only the run names: nothing there is listed.

    A name that leads out of the folder, or to what is no file, is left out.
    """
    root = paths.absolute(paths.to_path(data.path).expanduser())
    if not data.path or not root.is_dir():
        raise UserError(f"there is no folder {root}; say where they are by --data_path")
    names = [n for n in run.names if _is_within(n) and (root / n).is_file()]
    files = tuple(str(root / name) for name in names)
    # What the config says of geometry, under the names that the source has for it.
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
    """Of a run whose images.csv has none: its identity is a hash of all of them."""
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
        "the images there are others by now, or cannot be told from others: an older "
        "version made the run; run again with --overwrite"
    )


def read_pixels(source: Source, index: int):
    """uint8[height, width, 3], RGB as the network saw it; None: cannot be read."""
    if not 0 <= index < len(source.names):
        return None
    try:
        return source.read(index).pixels
    except (UnreadableImage, OSError):
        return None
