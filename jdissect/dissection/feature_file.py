"""Keeps arrays on disk while this process lives.

They are written to an unnamed file, so that nothing remains however the process ends,
and read as memory maps, so that unused arrays take no memory.
"""

import array
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdissect.base.errors import UserError

_ALIGN = 64  # bytes


class Spill:
    """A file that stores groups of arrays, with an index.

    The index takes a few bytes per group, as groups share equal shapes and types.

    Args:
      folder: folder of the file; created if needed.

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
        self._layouts: list[tuple] = []  # shapes and types of the arrays
        self._layout_of = array.array("H")
        self._offsets = array.array("q", [0])

    def __len__(self) -> int:
        return len(self._layout_of)

    def put(self, arrays: Sequence[np.ndarray]) -> None:
        """Appends a group.

        Raises:
          UserError: it cannot be written, for example because the disk is full.
        """
        arrays = [np.asarray(each, order="C") for each in arrays]
        layout = tuple((each.shape, each.dtype) for each in arrays)
        if layout not in self._layouts:
            self._layouts.append(layout)
        end = self._offsets[-1]
        try:
            for each in arrays:
                end = self._write(each.reshape(-1).view(np.uint8), end)
        except OSError as error:
            raise self._cannot(error) from error
        self._layout_of.append(self._layouts.index(layout))
        self._offsets.append(end)

    def get(self, number: int) -> list[np.ndarray]:
        """Returns group `number`, counted from the first appended, as memory maps."""
        found: list[np.ndarray] = []
        offset = self._offsets[number]
        for shape, dtype in self._layouts[self._layout_of[number]]:
            size = math.prod(shape) * dtype.itemsize
            if size:
                found.append(np.memmap(self._file, dtype, "r", offset, shape))
            else:
                found.append(np.zeros(shape, dtype))
            offset += _aligned(size)
        return found

    def _write(self, data: np.ndarray, offset: int) -> int:
        view, written = memoryview(data.data), 0
        while written < len(view):
            written += os.pwrite(self._file.fileno(), view[written:], offset + written)
        return offset + _aligned(len(view))

    def _cannot(self, error: OSError) -> UserError:
        return UserError(
            f"cannot keep features in {self._folder}: {error.strerror}; give another "
            "config.cache.dir, or config.cache.features=none"
        )


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
