"""Replaces finished work: writes the new beside the old, then switches them.

    FOLDER/summary.json ...    the old result, kept until the new one is complete
    FOLDER/next-.../           the new result, complete once its mark exists

A *mark* is the file that is written last into a folder, such as `summary.json`. A
switch removes FOLDER's mark and then the other old files, brings in the new files
(links on a disk, copies in an object store, where nothing can be renamed), the mark
last, and then removes next-... . So one of the two is complete at any interruption:
`current` finds it, and the next writer finishes the switch.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.paths import Path

PREFIX = "next-"
_MARKS = ("summary.json", "training.json", "model.json")  # marks of nested folders
_LIST = "replaces.json"  # names in FOLDER that the switch removes
_LEFT = frozenset({_LIST, "checkpoints"})  # not needed after the switch


def replacement_of(folder: Path, key: str) -> Path:
    """Returns the folder in which to write the replacement of FOLDER's content.

    Args:
      folder: the folder to replace.
      key: hash that identifies the new content, or a process number.
    """
    return folder / f"{PREFIX}{key[:12]}"


def current(folder: Path, mark: str) -> Path:
    """Returns the folder to read: `folder`, or the new one of an unfinished switch."""
    if (folder / mark).is_file():
        return folder
    for new in _replacements(folder):
        if _is_complete(new, mark):
            return new
    return folder


def find(folder: Path, mark: str, of: str) -> Path:
    """Like `current`, for a folder that may lie inside a switched one.

    Args:
      folder: the folder to find.
      mark: the mark of `folder`.
      of: the mark of the folder above it.
    """
    if not (folder.parent / of).is_file():
        above = current(folder.parent, of)
        there = above / folder.name
        if above != folder.parent and (there / mark).is_file():
            return there
    return current(folder, mark)


def finish_interrupted(
    folder: Path,
    mark: str,
    owned: Callable[[Path], Iterable[str]],
    keep: Path | None = None,
) -> None:
    """Finishes an interrupted switch, if there is one.

    Args:
      folder, mark, owned, keep: see `switch`.
    """
    for new in _replacements(folder):
        if _is_complete(new, mark):
            switch(folder, new, mark, owned, keep)


def switch(
    folder: Path,
    new: Path,
    mark: str,
    owned: Callable[[Path], Iterable[str]],
    keep: Path | None = None,
) -> None:
    """Replaces a folder's content by that of a complete folder inside it.

    Args:
      folder: the folder with the old content; files not in `owned` stay.
      new: the complete folder with the new content, inside `folder`.
      mark: the file that marks either of them as complete.
      owned: names of the old files and folders; `mark` may be among them.
      keep: a folder in `folder` that also stays, while all other unfinished
        replacements are removed.

    Raises:
      OSError, UserError: the disk or store fails; calling again continues.
    """
    if not (new / _LIST).is_file():
        names = sorted({*owned(folder)} - {mark})
        write_whole(new / _LIST, json.dumps(names).encode())
    (folder / mark).unlink(missing_ok=True)
    for name in _plain(json.loads(paths.read_bytes(new / _LIST))):
        _remove(folder / name)
    _link_or_copy(new, folder, mark)
    (new / mark).unlink()
    for other in _replacements(folder):
        if other != keep:
            paths.remove_folder(other)


@contextlib.contextmanager
def content_of(folder: Path, mark: str, owned: Iterable[str]) -> Iterator[Path]:
    """Yields a folder to write to; its content replaces that of `folder` at the end.

    If the block fails, the old content stays and nothing new appears.

    Args:
      folder: the folder to replace; it is created if missing.
      mark: the file that is written last.
      owned: names of all files that may be written; a switch removes them first.
    """
    made = not paths.is_remote(folder) and not folder.exists()
    paths.make_folder(folder)
    owned = (mark, *owned)
    if not (current(folder, mark) / mark).is_file():
        for name in owned:  # left by an interrupted write
            _remove(folder / name)
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(OSError, UserError):
                for name in owned:
                    _remove(folder / name)
                if made:
                    folder.rmdir()
            raise
        return
    finish_interrupted(folder, mark, lambda _: owned)
    new = replacement_of(folder, str(os.getpid()))
    paths.remove_folder(new)
    paths.make_folder(new)
    try:
        yield new
        switch(folder, new, mark, lambda _: owned)
    except BaseException:
        # Once the switch has begun, the new folder may be the only complete one.
        if (folder / mark).is_file():
            paths.remove_folder(new)
        raise


def _replacements(folder: Path) -> list[Path]:
    """Returns all unfinished replacements in FOLDER."""
    try:
        names = paths.folders_in(folder)
    except OSError:  # missing, or not readable
        return []
    return [folder / name for name in sorted(names) if name.startswith(PREFIX)]


def _is_complete(new: Path, mark: str) -> bool:
    if not (new / mark).is_file():
        return False
    if not mark.endswith(".json"):
        return True
    try:
        content = json.loads(paths.read_bytes(new / mark))
        return content.get("status", "finished") == "finished"
    except (ValueError, AttributeError, OSError):
        return False


def _plain(names: Iterable[str]) -> list[str]:
    """Returns the names that stay inside the folder: the list may be untrusted."""
    plain = [n for n in names if isinstance(n, str) and not set(n) & {"/", "\\"}]
    return [name for name in plain if name not in ("", ".", "..")]


def _remove(path: Path) -> None:
    """Removes a file or folder; in a folder the mark goes first."""
    if not path.is_dir() or (not paths.is_remote(path) and path.is_symlink()):
        path.unlink(missing_ok=True)
        return
    for mark in _MARKS:
        (path / mark).unlink(missing_ok=True)
    paths.remove_folder(path)


def _link_or_copy(source: Path, target: Path, mark: str) -> None:
    """Links or copies a folder's files into another; those in `_MARKS` last."""
    paths.make_folder(target)
    last = (*_MARKS, mark)
    entries = [entry for entry in source.iterdir() if entry.name not in _LEFT]
    # The web console marks an empty folder with an object, which lists as the folder.
    entries = [entry for entry in entries if entry.name != source.name]
    for entry in sorted(entries, key=lambda entry: (entry.name in last, entry.name)):
        there = target / entry.name
        if entry.is_dir():
            _link_or_copy(entry, there, mark)
        elif paths.is_remote(target):
            write_whole(there, paths.read_bytes(entry))
        else:
            _link(entry, there)


def _link(file: Path, there: Path) -> None:
    there.unlink(missing_ok=True)
    try:
        os.link(file, there)
    except OSError:  # the file system has no links
        aside = there.with_name(f".{there.name}.{os.getpid()}")
        try:
            shutil.copyfile(file, aside)
            aside.replace(there)
        finally:
            aside.unlink(missing_ok=True)
