"""How finished work is replaced: the new is made beside the old, then they switch.

    FOLDER/summary.json ...    what is there, and stays until the new is whole
    FOLDER/next-.../           the new, whole once its own mark says so

A *mark* is the file of a folder that is written last, such as `summary.json`. A switch
removes FOLDER's mark, then what else was there, brings the new files (links on a disk,
copies in an object store, where nothing can be renamed), the mark last, and removes
next-... at the end. So whenever it is cut off one of the two is whole: `current` finds
it, and the next to write there ends the switch.
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
_MARKS = ("summary.json", "training.json", "model.json")  # of folders in folders
_LIST = "replaces.json"  # what the switch takes away: names in FOLDER
_LEFT = frozenset({_LIST, "checkpoints"})  # what is of no use afterwards


def beside(folder: Path, key: str) -> Path:
    """Where to make what is to replace FOLDER's content.

    Args:
      folder: that of the old.
      key: hash of what the new is, or a process's number.
    """
    return folder / f"{PREFIX}{key[:12]}"


def current(folder: Path, mark: str) -> Path:
    """The folder to read: itself, but for a switch that was cut off."""
    if (folder / mark).is_file():
        return folder
    return next((new for new in _beside(folder) if _is_whole(new, mark)), folder)


def find(folder: Path, mark: str, of: str) -> Path:
    """As `current`, of a folder that may be part of what was switched.

    Args:
      folder: of its own mark `mark`.
      mark: its file.
      of: the mark of the folder above.
    """
    if not (folder.parent / of).is_file():
        above = current(folder.parent, of)
        there = above / folder.name
        if above != folder.parent and (there / mark).is_file():
            return there
    return current(folder, mark)


def settle(
    folder: Path,
    mark: str,
    owned: Callable[[Path], Iterable[str]],
    keep: Path | None = None,
) -> None:
    """Ends a switch that was cut off, if there is one.

    Args:
      folder, mark, owned, keep: see `switch`.
    """
    for new in _beside(folder):
        if _is_whole(new, mark):
            switch(folder, new, mark, owned, keep)


def switch(
    folder: Path,
    new: Path,
    mark: str,
    owned: Callable[[Path], Iterable[str]],
    keep: Path | None = None,
) -> None:
    """Puts a whole folder in the place of what its parent holds.

    Args:
      folder: of the old; files that are not its own stay.
      new: in it, whole.
      mark: the file that makes either of the two whole.
      owned: names of the old's own files and folders, `mark` among them or not.
      keep: a folder in `folder` that stays, too, while all else that was begun beside
        the old goes.

    Raises:
      OSError, UserError: as the disk or store has it; the same call goes on with it.
    """
    if not (new / _LIST).is_file():
        names = sorted({*owned(folder)} - {mark})
        write_whole(new / _LIST, json.dumps(names).encode())
    (folder / mark).unlink(missing_ok=True)
    for name in _plain(json.loads(paths.read_bytes(new / _LIST))):
        _remove(folder / name)
    _bring(new, folder, mark)
    (new / mark).unlink()
    for other in _beside(folder):
        if other != keep:
            paths.remove_folder(other)


@contextlib.contextmanager
def making(folder: Path, mark: str, owned: Iterable[str]) -> Iterator[Path]:
    """Where to write, at once, what is then in `folder` instead of what is there.

    Where the block fails, what was there is there, and nothing new.

    Args:
      folder: made if it is not there.
      mark: the file that is written last.
      owned: names of all that may be written, which go before a switch.
    """
    made = not paths.is_remote(folder) and not folder.exists()
    paths.make_folder(folder)
    owned = (mark, *owned)
    if not (current(folder, mark) / mark).is_file():
        for name in owned:  # of one that was cut off
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
    settle(folder, mark, lambda _: owned)
    new = beside(folder, str(os.getpid()))
    paths.remove_folder(new)
    paths.make_folder(new)
    try:
        yield new
        switch(folder, new, mark, lambda _: owned)
    except BaseException:
        # Unless the switch has begun: then it is all that is whole.
        if (folder / mark).is_file():
            paths.remove_folder(new)
        raise


def _beside(folder: Path) -> list[Path]:
    """All that was begun beside FOLDER's content."""
    try:
        names = paths.folders_in(folder)
    except OSError:  # not there, or not ours to list
        return []
    return [folder / name for name in sorted(names) if name.startswith(PREFIX)]


def _is_whole(new: Path, mark: str) -> bool:
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
    """Those that lead nowhere else: a list may come from somebody else."""
    plain = [n for n in names if isinstance(n, str) and not set(n) & {"/", "\\"}]
    return [name for name in plain if name not in ("", ".", "..")]


def _remove(path: Path) -> None:
    """Removes a file or folder; of a folder its mark first."""
    if not path.is_dir() or (not paths.is_remote(path) and path.is_symlink()):
        path.unlink(missing_ok=True)
        return
    for mark in _MARKS:
        (path / mark).unlink(missing_ok=True)
    paths.remove_folder(path)


def _bring(source: Path, target: Path, mark: str) -> None:
    """Links or copies a folder's files into another; those of `_MARKS` last."""
    paths.make_folder(target)
    last = (*_MARKS, mark)
    entries = [entry for entry in source.iterdir() if entry.name not in _LEFT]
    # The marker of an empty folder, as the web console makes it, lists as the folder.
    entries = [entry for entry in entries if entry.name != source.name]
    for entry in sorted(entries, key=lambda entry: (entry.name in last, entry.name)):
        there = target / entry.name
        if entry.is_dir():
            _bring(entry, there, mark)
        elif paths.is_remote(target):
            write_whole(there, paths.read_bytes(entry))
        else:
            _link(entry, there)


def _link(file: Path, there: Path) -> None:
    there.unlink(missing_ok=True)
    try:
        os.link(file, there)
    except OSError:  # a file system without links
        aside = there.with_name(f".{there.name}.{os.getpid()}")
        try:
            shutil.copyfile(file, aside)
            aside.replace(there)
        finally:
            aside.unlink(missing_ok=True)
