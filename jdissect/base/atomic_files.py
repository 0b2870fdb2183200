"""Writes files atomically: a reader sees the whole file or none."""

import os
import secrets
from pathlib import Path

from jdissect.base import paths
from jdissect.base.errors import UserError


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file atomically.

    On a disk it writes a temporary file and renames it; in an object store, where
    writes are atomic anyway, it writes directly.

    Raises:
      OSError: the disk is full, the folder read-only...; no partial file is left.
      UserError: `path` is a URL whose store cannot be reached or refuses the write.
    """
    path = paths.to_path(path)
    if paths.is_remote(path):
        _write_object(path, content)
        return
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    try:
        # The system applies the user's umask to 0o666. Reading the umask here
        # means changing it for a moment, in which other threads may create files.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(aside, flags, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # "disk full" errors carry no path
            error.filename2 = None
        raise


def utf8(text: str) -> bytes:
    """Returns a text as UTF-8 bytes, including paths decoded in a non-UTF-8 locale.

    Names that are not UTF-8 on the disk become escapes, which JSON decodes back.
    """
    try:
        name = text.encode("utf-8", "surrogateescape")
        return name.decode("utf-8", "surrogateescape").encode(
            "utf-8", "backslashreplace"
        )
    except UnicodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace")


def _write_object(path, content):
    try:
        with paths.reaching(path):
            path.write_bytes(content)
    except FileNotFoundError:
        raise UserError(f"{path} cannot be written: there is no such bucket") from None
