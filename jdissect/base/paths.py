"""Paths that a user gives: on this machine, or in an object store such as gs://.

A path of this machine is a `pathlib.Path`. A URL is an `epath.Path`, which has the same
methods but for what only a disk can do: a folder is there as far as objects are in it,
a folder cannot be renamed at once, and an object is written whole or not at all. (As a
`pathlib.Path`, gs://bucket/run would be a folder 'gs:' in the current one.)
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import fsspec
from etils import epath

from jdissect.base.errors import UserError

Path = pathlib.Path | epath.Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SHARE = re.compile(r"[\\/]{2}")
# Of etils.epath; and what `pip install` brings the file system of each.
_PACKAGES = {
    "gs": "gcsfs",
    "s3": "s3fs",
    "az": "adlfs",
    "hf": "huggingface_hub",
}


def to_path(text: str | os.PathLike) -> Path:
    """The path that a text means. Nothing is asked of disks and stores.

    Raises:
      UserError: a URL of a kind that is not known.
    """
    if isinstance(text, pathlib.Path):
        return text
    name = os.fspath(text)
    scheme = _URL.match(name)
    if scheme is None:
        return pathlib.Path(on_disk(name))
    if scheme[1] not in _PACKAGES:
        raise UserError(
            f"{name} cannot be used; paths are of this machine or begin with "
            f"{', '.join(f'{known}://' for known in _PACKAGES)}"
        )
    # What other processes write is to be seen.
    protocol = {"gs": "gcs"}.get(scheme[1], scheme[1])
    options = fsspec.config.conf.setdefault(protocol, {})
    options.setdefault("use_listings_cache", False)
    return epath.Path(name)


def from_user(text: str | os.PathLike) -> Path:
    """The path that a user gave; of a URL, once its store has answered.

    Raises:
      UserError: the URL is of an unknown kind, the package for its store is missing,
        or the store refuses.
    """
    path = to_path(text)
    if is_remote(path) and not isinstance(text, epath.Path):
        with contextlib.suppress(FileNotFoundError), reaching(path):
            path.stat()
    return path


def local(text: str | os.PathLike, what: str) -> pathlib.Path:
    """The path that a user gave where it has to be of this machine.

    Args:
      text: the path.
      what: the flag or key that it is from.

    Raises:
      UserError: it is a URL.
    """
    if _URL.match(os.fspath(text)):
        raise UserError(f"{what} is {text}; it must be on a disk of this machine")
    return pathlib.Path(on_disk(os.fspath(text)))


def on_disk(name: str) -> str:
    """A path that was read as text, as this system's functions take it.

    They are the same but in a locale without UTF-8, where Python keeps a name's bytes
    in surrogates and cannot encode the letters themselves.
    """
    try:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    except UnicodeError:
        return name


def as_text(path: str | os.PathLike) -> str:
    """A path as text for people and UTF-8 files, whatever the locale."""
    name = os.fspath(path).encode("utf-8", "surrogateescape")
    return name.decode("utf-8", "backslashreplace")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path, or its text, is one in an object store."""
    return _URL.match(os.fspath(path)) is not None


def is_elsewhere(path: str | os.PathLike) -> bool:
    """Whether opening a path asks another machine: an object store, or a host's share.

    On Windows //HOST/... and \\\\HOST\\... are a host's.
    """
    return is_remote(path) or _SHARE.match(os.fspath(path)) is not None


def absolute(path: Path) -> Path:
    """The path with the current folder put before it; a URL is absolute."""
    return path if is_remote(path) else path.absolute()


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Whatever the client of a store raises, as one line; of disks nothing changes.

    Raises:
      UserError: the store cannot be reached, or refuses.
      FileNotFoundError: the object is not there.
    """
    try:
        yield
    except (FileNotFoundError, MemoryError, UserError):
        raise
    except Exception as error:  # clients raise what their libraries do
        if not is_remote(path):
            raise
        if isinstance(error, ImportError):
            scheme = _URL.match(os.fspath(path))[1]
            raise UserError(
                f"{path} needs a package: pip install {_PACKAGES[scheme]}"
            ) from error
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be reached: {text}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      OSError: as the disk has it; of a URL FileNotFoundError only.
      UserError: the store cannot be reached, or refuses.
    """
    with reaching(path):
        return path.read_bytes()


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder that exists."""
    if not is_remote(folder):
        return not any(folder.iterdir())
    # The marker of an empty folder, as the web console makes it, lists as the folder.
    return all(entry.name == folder.name for entry in folder.iterdir())


def folders_in(folder: Path) -> list[str]:
    """Names of the folders that are in a folder."""
    if not is_remote(folder):
        return [entry.name for entry in folder.iterdir() if entry.is_dir()]
    with reaching(folder):  # one listing, where a question an entry would take long
        return next((names for _, names, _ in folder.walk()), [])


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, if need be; in a store there is nothing to do."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder and what is in it, as far as that can be done."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError), reaching(folder):
        folder.rmtree()
