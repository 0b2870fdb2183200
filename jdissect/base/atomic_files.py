"""Files that appear whole or not at all."""

import os
import secrets
from pathlib import Path

from jdissect.base import paths
from jdissect.base.errors import UserError


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Writes aside, then renames; in an object store at once, as it has no halves.

    Raises:
      OSError: the disk is full, the folder read-only...; nothing new is left behind.
      UserError: of a URL: the store cannot be reached, or refuses.
    """
    path = paths.to_path(path)
    if paths.is_remote(path):
        _write_object(path, content)
        return
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    try:
        # The system itself takes from 0o666 what the user's umask says: to read the
        # umask is to change it for a moment, in which other threads make files.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(aside, flags, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say where
            error.filename2 = None
        raise


def utf8(text: str) -> bytes:
    """A text's bytes in UTF-8; paths in it may be as a locale without it has them.

    What is no UTF-8 on the disk either becomes an escape, which JSON reads as it was.
    """
    try:
        name = text.encode("utf-8", "surrogateescape")
        return name.decode("utf-8", "surrogateescape").encode(
            "utf-8", "backslashreplace"
        )
    except UnicodeError:  # a lone surrogate of another kind
        return text.encode("utf-8", "backslashreplace")


def _write_object(path, content):
    try:
        with paths.reaching(path):
            path.write_bytes(content)
    except FileNotFoundError:
        raise UserError(f"{path} cannot be written: there is no such bucket") from None
