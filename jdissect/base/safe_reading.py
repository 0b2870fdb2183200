"""Files that may be from anybody, read safely: JSON, and the arrays of an .npz file.

A compressed array of a few kilobytes can claim to be as large as no memory is. So what
an .npz file holds is read from the headers of its arrays first, and an array is only
unpacked once its type, its shape and its size in the file are what they should be.
"""

import dataclasses
import json
import math
import threading
import zipfile
import zlib
from typing import Any

import numpy as np

from jdissect.base import paths
from jdissect.base.errors import UserError

MOST_BYTES = 2**32  # of an array; the largest of 10,000 units is a fifth of that
_CHUNK = 2**20  # bytes unpacked at once
# NumPy parses a header as Python. Before Python 3.12.3 two threads that parse at the
# same time can fail with "AST constructor recursion depth mismatch"
# (github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()
# zipfile and its packers; RuntimeError and NotImplementedError of an encrypted member.
_BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_json(path: paths.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: it cannot be read, or holds something else.
      FileNotFoundError: there is no such file.
    """
    try:
        content = json.loads(paths.read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


@dataclasses.dataclass(frozen=True)
class Header:
    """What an array in a file is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: str = "C"  # or "F", columns first
    start: int = 0  # of the values, bytes from the beginning of the .npy member


class Arrays:
    """The arrays of an .npz file; a context in which they can be read.

    Args:
      path: of the file.
      names: arrays that must be there; others are not looked at.

    Attributes:
      headers: {name: Header}.

    Raises:
      UserError: the file cannot be read, lacks an array, or holds one that is not as
        large as its header says, or of Python objects. The same on leaving, for
        whatever went wrong inside.
    """

    def __init__(self, path: paths.Path, names):
        self._path, self._names = path, tuple(names)
        self.headers: dict[str, Header] = {}

    def __enter__(self) -> "Arrays":
        self._file = self._zip = None
        try:
            self._file = self._path.open("rb")
            self._zip = zipfile.ZipFile(self._file)
            members = {info.filename: info for info in self._zip.infolist()}
            for name in self._names:
                if f"{name}.npy" not in members:
                    raise UserError(f"{self._path} lacks '{name}'")
                self.headers[name] = self._header(name, members[f"{name}.npy"])
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, traceback) -> None:
        for opened in (self._zip, self._file):
            if opened is not None:
                opened.close()
        if isinstance(error, _BROKEN) and not isinstance(error, UserError):
            text = f"{self._path} cannot be read: {_reason(error)}"
            raise UserError(text) from None

    def read(self, name: str) -> np.ndarray:
        """An array; its header has been checked."""
        header = self.headers[name]
        values = np.empty(math.prod(header.shape), header.dtype)
        content = values.view(np.uint8)
        with self._zip.open(f"{name}.npy") as member:
            member.read(header.start)
            for start in range(0, content.size, _CHUNK):
                chunk = content[start : start + _CHUNK]
                if member.readinto(chunk) != chunk.size:
                    raise EOFError(f"'{name}' ends early")
        return values.reshape(header.shape, order=header.order)

    def _header(self, name: str, info: zipfile.ZipInfo) -> Header:
        where = f"{self._path}: '{name}'"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{where} is packed in a way that NumPy never does")
        with self._zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version != (1, 0):  # others can have headers of gigabytes
                raise UserError(f"{where} has a header that jdissect never writes")
            with _PARSING:
                header = np.lib.format.read_array_header_1_0(member)
            shape, by_columns, dtype = header
            start = member.tell()
        if dtype.hasobject:
            raise UserError(f"{where} holds Python objects")
        size = math.prod(shape) * dtype.itemsize
        if size > MOST_BYTES:
            raise UserError(f"{where} claims {size:,} bytes, more than {MOST_BYTES:,}")
        if any(length < 0 for length in shape) or start + size != info.file_size:
            raise UserError(
                f"{where} has shape {tuple(shape)} of {dtype}, but not as many bytes"
            )
        return Header(tuple(shape), dtype, "F" if by_columns else "C", start)


def _reason(error: BaseException) -> str:
    """In one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:200] or type(error).__name__
