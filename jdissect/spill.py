"""Arrays kept on disk for as long as this process lives.

They go to a file without a name, so that nothing stays behind however the process ends,
and come back as memory maps: what is not being looked at takes no memory.
"""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jdissect.errors import UserError

_PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array is in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: Any


class Spill:
    """A file that arrays are added to.

    Args:
      folder: where it is; made if need be.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._cannot(error) from error
        self._end = 0

    def put(self, array: np.ndarray) -> Place:
        """Adds an array.

        Raises:
          UserError: the disk is full, say.
        """
        array = np.asarray(array, order="C")
        place = Place(self._end, array.shape, array.dtype)
        data = memoryview(array.reshape(-1).view(np.uint8))
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(
                    self._file.fileno(), data[written:], self._end + written
                )
        except OSError as error:
            raise self._cannot(error) from error
        self._end += -(-len(data) // _PAGE) * _PAGE
        return place

    def get(self, place: Place) -> np.ndarray:
        """An array that was added, as a memory map."""
        if not np.prod(place.shape):
            return np.zeros(place.shape, place.dtype)
        return np.memmap(self._file, place.dtype, "r", place.offset, place.shape)

    def _cannot(self, error: OSError) -> UserError:
        return UserError(
            f"cannot keep features in {self._folder}: {error.strerror}; give another "
            "config.cache.dir, or config.cache.features=none"
        )
