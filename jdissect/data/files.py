"""Opens data files only if reading them is sure to end.

A folder may come from anywhere: in it, x.jpg may be a pipe that waits for its other
end, a link to an endless device, or a file of 100 GB.
"""

import contextlib
import errno
import io
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import BinaryIO

from jdissect.base import paths

MAX_BYTES = 1 << 30  # per encoded image, mask or table


@contextlib.contextmanager
def opened(file: str | paths.Path | BinaryIO) -> Iterator[BinaryIO]:
    """Opens a file for reading; downloads a URL; passes on an open file.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is larger than
            MAX_BYTES.
        UserError: the object store of a URL cannot be reached.
    """
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    if paths.is_remote(file):
        yield io.BytesIO(_object(paths.to_path(file)))
        return
    file = paths.on_disk(os.fspath(file))
    # Checked before opening too: opening alone can block or affect a device.
    _check(pathlib.Path(file).stat(), file)
    with open(file, "rb", opener=_without_waiting) as content:  # noqa: PTH123
        _check(os.fstat(content.fileno()), file)
        yield content


def read_bytes(path: paths.Path) -> bytes:
    """Returns the content of a file; raises as `opened` does."""
    with opened(path) as file:
        return file.read()


def _object(path: paths.Path) -> bytes:
    with paths.reaching(path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    return content


def _check(status: os.stat_result, file: str | os.PathLike) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", file)
    if status.st_size > MAX_BYTES:
        raise _too_large(file)


def _too_large(file: str | os.PathLike) -> OSError:
    text = f"more than {MAX_BYTES:,} bytes, the limit"
    return OSError(errno.EFBIG, text, file)


def _without_waiting(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))
