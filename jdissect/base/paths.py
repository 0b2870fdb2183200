"""Handles the paths a user gives: on a local disk, or in an object store such as gs://.

A local path is a `pathlib.Path`. A URL is an `epath.Path`, which has the same methods
with three differences: a folder exists only if it contains objects, a folder cannot be
renamed atomically, and every write of an object is atomic. (As a `pathlib.Path`,
gs://bucket/run would be a folder 'gs:' in the current folder.)
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import TypeAlias

import fsspec
from etils import epath

from jdissect.base.errors import UserError

Path: TypeAlias = pathlib.Path | epath.Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SHARE = re.compile(r"[\\/]{2}")
# The schemes of etils.epath, and the package that provides each file system.
_PACKAGES = {
    "gs": "gcsfs",
    "s3": "s3fs",
    "az": "adlfs",
    "hf": "huggingface_hub",
}


def to_path(text: str | os.PathLike) -> Path:
    """Returns the path that a text names, without accessing a disk or store.

    Raises:
      UserError: the URL has an unknown scheme.
    """
    if isinstance(text, pathlib.Path):
        return text
    name = os.fspath(text)
    scheme = _URL.match(name)
    if scheme is None:
        return pathlib.Path(on_disk(name))
    if scheme[1] not in _PACKAGES:
        raise UserError(
            f"{name} cannot be used; a path must be local or begin with "
            f"{', '.join(f'{known}://' for known in _PACKAGES)}"
        )
    # Without the cache, writes of other processes are visible.
    protocol = {"gs": "gcs"}.get(scheme[1], scheme[1])
    options = fsspec.config.conf.setdefault(protocol, {})
    options.setdefault("use_listings_cache", False)
    return epath.Path(name)


def from_user(text: str | os.PathLike) -> Path:
    """Returns the path that a user gave; for a URL, checks that its store answers.

    Raises:
      UserError: the URL has an unknown scheme, the package for its store is missing,
        or the store refuses.
    """
    path = to_path(text)
    if is_remote(path) and not isinstance(text, epath.Path):
        with contextlib.suppress(FileNotFoundError), reaching(path):
            path.stat()
    return path


def local(text: str | os.PathLike, what: str) -> pathlib.Path:
    """Returns the path that a user gave where only a local path is allowed.

    Args:
      text: the path.
      what: the flag or key that holds it, for the message.

    Raises:
      UserError: the path is a URL.
    """
    if _URL.match(os.fspath(text)):
        raise UserError(f"{what} is {text}; it must be on a disk of this machine")
    return pathlib.Path(on_disk(os.fspath(text)))


def on_disk(name: str) -> str:
    """Returns a path read from text in the form that system calls take.

    The two differ only in a non-UTF-8 locale, where Python represents a name's bytes
    as surrogates and cannot encode the letters themselves.
    """
    try:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    except UnicodeError:
        return name


def as_text(path: str | os.PathLike) -> str:
    """Returns a path as text for messages and UTF-8 files, whatever the locale."""
    name = os.fspath(path).encode("utf-8", "surrogateescape")
    return name.decode("utf-8", "backslashreplace")


def is_remote(path: str | os.PathLike) -> bool:
    """Returns whether a path, or its text, is in an object store."""
    return _URL.match(os.fspath(path)) is not None


def is_elsewhere(path: str | os.PathLike) -> bool:
    """Returns whether opening a path contacts another machine (store or share).

    On Windows, //HOST/... and \\\\HOST\\... are network shares.
    """
    return is_remote(path) or _SHARE.match(os.fspath(path)) is not None


def absolute(path: Path) -> Path:
    """Returns the path made absolute; a URL is absolute already."""
    return path if is_remote(path) else path.absolute()


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turns any error of a store's client into one line; local errors pass through.

    Raises:
      UserError: the store cannot be reached or refuses.
      FileNotFoundError: the object does not exist.
    """
    try:
        yield
    except (FileNotFoundError, MemoryError, UserError):
        raise
    except Exception as error:  # each client raises errors of its own
        if not is_remote(path):
            raise
        if isinstance(error, ImportError):
            scheme = os.fspath(path).partition("://")[0]
            raise UserError(
                f"{path} needs a package: pip install {_PACKAGES[scheme]}"
            ) from error
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be reached: {text}") from error


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
      OSError: the disk cannot read it; for a URL only FileNotFoundError.
      UserError: the store cannot be reached or refuses.
    """
    with reaching(path):
        return path.read_bytes()


def is_empty(folder: Path) -> bool:
    """Returns whether an existing folder is empty."""
    if not is_remote(folder):
        return not any(folder.iterdir())
    # The web console marks an empty folder with an object, which lists as the folder.
    return all(entry.name == folder.name for entry in folder.iterdir())


def folders_in(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder."""
    if not is_remote(folder):
        return [entry.name for entry in folder.iterdir() if entry.is_dir()]
    with reaching(folder):  # one listing: faster than one request per entry
        # epath, which has no types, has it for all versions of Python.
        return next((names for _, names, _ in folder.walk()), [])  # type: ignore[union-attr]


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents if needed; does nothing for an object store."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder and its content; what cannot be removed stays."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError), reaching(folder):
        folder.rmtree()  # type: ignore[union-attr]  # of epath, which has no types
