"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from jdissect import paths
from jdissect.errors import UserError


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
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's files are private; give what open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        Path(aside).chmod(0o666 & ~mask)
        Path(aside).replace(path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        raise


def _write_object(path, content):
    try:
        with paths.reaching(path):
            path.write_bytes(content)
    except FileNotFoundError:
        raise UserError(f"{path} cannot be written: there is no such bucket") from None
