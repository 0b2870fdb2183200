"""Reads untrusted files safely: JSON, and the arrays of an .npz file.

A compressed array of a few kilobytes can claim to be larger than memory. So the headers
of an .npz file's arrays are read first, and an array is unpacked only once its type,
shape and size in the file are as expected.
"""

import dataclasses
import json
import math
import threading
import zipfile
import zlib
from typing import Any, Literal

import numpy as np

from jdissect.base import paths
from jdissect.base.errors import UserError

MOST_BYTES = 2**32  # per array; the largest for 10,000 units needs a fifth
_CHUNK = 2**20  # bytes unpacked at once
# NumPy parses a header as Python code. Before Python 3.12.3, two threads that parse at
# the same time can fail with "AST constructor recursion depth mismatch"
# (github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()
# Raised by zipfile and its codecs; RuntimeError for an encrypted member.
_BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_json(path: paths.Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      UserError: the file cannot be read, or does not hold a JSON object.
      FileNotFoundError: the file does not exist.
    """
    try:
        content = json.loads(paths.read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return content


@dataclasses.dataclass(frozen=True)
class Header:
    """Type, shape and place of an array in a file, known before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"] = "C"  # "F": column-major
    start: int = 0  # byte offset of the values in the .npy member


class Arrays:
    """Reads the arrays of an .npz file; use as a context manager.

    Args:
      path: the .npz file.
      names: arrays that must be there; others are ignored.

    Attributes:
      headers: {name: Header}.

    Raises:
      UserError: on entry, the file cannot be read, lacks an array, or holds one of
        Python objects or of a size other than its header says. On exit, the same for
        any read error inside the block.
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
        """Returns an array; its header has been checked on entry."""
        header = self.headers[name]
        values = np.empty(math.prod(header.shape), header.dtype)
        content = values.view(np.uint8)
        assert self._zip is not None  # within the block
        with self._zip.open(f"{name}.npy") as member:
            member.read(header.start)
            for start in range(0, content.size, _CHUNK):
                chunk = content[start : start + _CHUNK]
                read = member.readinto(chunk)  # type: ignore[attr-defined]  # not in typeshed
                if read != chunk.size:
                    raise EOFError(f"'{name}' ends early")
        return values.reshape(header.shape, order=header.order)

    def _header(self, name: str, info: zipfile.ZipInfo) -> Header:
        where = f"{self._path}: '{name}'"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{where} uses a compression that NumPy never writes")
        assert self._zip is not None  # within the block
        with self._zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version != (1, 0):  # later versions allow headers of gigabytes
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
                f"{where} has shape {tuple(shape)} of {dtype}, which does not match "
                "its number of bytes"
            )
        return Header(tuple(shape), dtype, "F" if by_columns else "C", start)


def _reason(error: BaseException) -> str:
    """Returns an error's reason on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:200] or type(error).__name__
