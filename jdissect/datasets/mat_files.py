"""Reads label maps and tables from MATLAB files with SciPy, within limits of size.

A file of version 5 may claim any size, for what a compressed element unpacks to and for
the elements of a cell or struct, and any type. These are checked before SciPy, which
trusts them, reads the file. SciPy does not run code that a file contains.
"""

import contextlib
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from jaxtyping import Shaped

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.files import read_bytes
from jdissect.data.images import why

MAX_TABLE = 1 << 30  # bytes of a table, unpacked
_HEADER, _TAG, _MATRIX, _COMPRESSED = 128, 8, 14, 15
_TYPES = {*range(1, 8), 9, *range(12, 19)}  # of elements; SciPy crashes for others
_ALLOCATED = (1, 2, 3, 4)  # classes cell, struct, object, char
_CLASSES = range(1, 18)
_DEEPEST = 16
_OTHERS = 1 << 20  # bytes for other variables beside a label map

Element = tuple[int, bytes]


def read_map(
    path: str, name: str, shape: tuple[int, int]
) -> Shaped[np.ndarray, "height width"]:
    """Returns a matrix of whole numbers.

    Raises:
        UserError: the file cannot be read, lacks the matrix, or has it in another type
            or size.
    """
    with _reading(path):
        content = read_bytes(Path(path))
        # Of doubles, with space for other small variables.
        _check(content, 8 * math.prod(shape) + _OTHERS)
        known = {key: (of, kind) for key, of, kind in _listed(content)}
        if name not in known:
            raise ValueError(f"it has no variable {name}")
        if known[name][0] != shape:
            size = "x".join(map(str, known[name][0]))
            raise ValueError(
                f"{name} is {size}, but its image is {shape[0]}x{shape[1]} "
                "(height x width)"
            )
        found = _load(content, name)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "buif":
            raise ValueError(f"{name} does not consist of numbers")
        if found.dtype.kind == "f" and not (found == np.floor(found)).all():
            raise ValueError(f"{name} does not consist of whole numbers")
        return found
    raise AssertionError  # `_reading` lets no error through


def read_struct(path: Path, name: str) -> dict[str, np.ndarray]:
    """Returns the fields of a struct that are arrays, without axes of length 1.

    Raises:
        UserError: the file cannot be read or lacks the struct.
    """
    with _reading(str(path)):
        content = read_bytes(path)
        _check(content, MAX_TABLE)
        found = _load(content, name, squeeze_me=True)
        if (
            not isinstance(found, np.ndarray)
            or found.dtype.names is None
            or found.shape
        ):
            raise ValueError(f"it has no struct {name}")
        fields = {field: found[field].item() for field in found.dtype.names}
        return {key: of for key, of in fields.items() if isinstance(of, np.ndarray)}
    raise AssertionError  # `_reading` lets no error through


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, UserError):
        raise  # the machine failed, not the file
    except Exception as error:  # SciPy's readers raise all kinds for a broken file
        raise UserError(f"{printable(path)} cannot be read: {why(error)}.") from None


def _listed(content: bytes) -> list[tuple[str, tuple[int, ...], str]]:
    return scipy.io.whosmat(io.BytesIO(content))


def _load(content: bytes, name: str, **options: Any) -> Any:
    return scipy.io.loadmat(io.BytesIO(content), variable_names=[name], **options).get(
        name
    )


def _check(content: bytes, most: int) -> None:
    """Raises ValueError if the file is not of version 5, or claims too much."""
    order: dict[bytes, Literal["little", "big"]] = {b"IM": "little", b"MI": "big"}
    endian = order.get(content[_HEADER - 2 : _HEADER])
    if endian is None or content[:4] == bytes(4):
        raise ValueError("it is not a MATLAB file of version 5 to 7")
    for kind, data in _elements(content[_HEADER:], endian):
        inner = [(kind, data)]
        if kind == _COMPRESSED:
            data = zlib.decompressobj().decompress(data, most + 1)
        most -= len(data)
        if most < 0:
            raise ValueError("it unpacks to more than it may hold")
        if kind == _COMPRESSED:
            inner = list(_elements(data, endian))
        for of, part in inner:
            _check_matrix(of, part, endian)


def _elements(content: bytes, endian: Literal["little", "big"]) -> Iterator[Element]:
    """Yields (type, data) of each element."""
    at = 0
    while at + _TAG <= len(content):
        kind, size = (
            int.from_bytes(content[at + of : at + of + 4], endian) for of in (0, 4)
        )
        start = at + _TAG
        if small := kind >> 16:  # up to four bytes within the tag
            kind, size, start = kind & 0xFFFF, small, at + 4
        if kind not in _TYPES or size > (4 if small else len(content) - start):
            raise ValueError("it is damaged")
        yield kind, content[start : start + size]
        if small:
            at += _TAG
            continue
        padding = 0 if kind == _COMPRESSED else -size % 8
        at += _TAG + size + padding


def _check_matrix(
    kind: int, data: bytes, endian: Literal["little", "big"], depth: int = 0
) -> None:
    """Raises ValueError if a cell, struct or text has more elements than bytes.

    SciPy allocates these before it reads them; numbers it reads first.
    """
    if kind != _MATRIX or not data:
        return
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    parts = _elements(data, endian)
    (_, flags), (_, sizes) = next(parts, (0, b"")), next(parts, (0, b""))
    of = flags[0 if endian == "little" else 3] if len(flags) == 8 else 0
    if of not in _CLASSES:
        raise ValueError("it is damaged")
    if of not in _ALLOCATED:
        for _ in parts:  # raises if one is of no known type
            pass
        return
    counts = [
        int.from_bytes(sizes[at : at + 4], endian) for at in range(0, len(sizes), 4)
    ]
    if math.prod(counts) > len(data):
        raise ValueError("it claims more elements than it has")
    for inner, part in parts:
        _check_matrix(inner, part, endian, depth + 1)
