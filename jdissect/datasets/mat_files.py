"""Reads label maps and tables from MATLAB files with SciPy, within limits of size.

A file of version 5 holds compressed elements, whose headers may claim any size. What
they unpack to is measured before SciPy, which trusts them, reads the file. SciPy does
not run code that a file contains.
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
_HEADER, _TAG, _COMPRESSED = 128, 8, 15
_CHUNK = 1 << 20


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
        _check(content, 8 * math.prod(shape) + _CHUNK)
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
    """Raises ValueError if the file is not of version 5, or unpacks to too much."""
    order: dict[bytes, Literal["little", "big"]] = {b"IM": "little", b"MI": "big"}
    endian = order.get(content[_HEADER - 2 : _HEADER])
    if endian is None or content[:4] == bytes(4):
        raise ValueError("it is not a MATLAB file of version 5 to 7")
    total, at = 0, _HEADER
    while at + _TAG <= len(content):
        kind, size = (
            int.from_bytes(content[at + of : at + of + 4], endian) for of in (0, 4)
        )
        at += _TAG
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            packed = content[at : at + size]
            while packed and not unpack.eof and total <= most:
                total += len(unpack.decompress(packed, _CHUNK))
                packed = unpack.unconsumed_tail
        else:
            total += size
        if total > most:
            raise ValueError(f"it unpacks to more than {most:,} bytes")
        at += size
