"""Hashes file contents, with a manifest that avoids reading unchanged files again.

The manifest trusts a stored hash while a file's inode, size, mtime and ctime are
unchanged; for an object in a store, while size and mtime are, if the store reports
them. A file that changed within the clock's granularity of being hashed could change
again unnoticed, so it is not recorded. A manifest only saves time: if it cannot be read
or written, the files are read.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.data.files import opened

UNREADABLE = "0" * 64  # the hash of a file that cannot be read; its image is skipped
_SETTLED_NS = 2_000_000_000  # the coarsest time stamps in use (FAT) have steps of 2 s
_SETTLED_REMOTE_NS = 60_000_000_000  # stores give mtimes in seconds of their own clock
_THREADS = 8  # hashing and reading both release the GIL

Stamp = list[int]  # inode (0: in a store), size, mtime_ns, ctime_ns


def hash_file(path: paths.Path) -> str:
    """Returns the sha256 of a file in hex, or `UNREADABLE` if `opened` rejects it.

    Raises:
        UserError: the file's store cannot be reached or refuses.
    """
    try:
        with opened(path) as file:
            # typeshed wants a method that only some binary files have.
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
            return digest.hexdigest()
    except OSError:
        return UNREADABLE


def hash_files(
    files: Sequence[paths.Path], cache_dir: Path | None, scope: str
) -> tuple[str, ...]:
    """Returns the sha256 of each file, in hex.

    Args:
        files: absolute paths.
        cache_dir: folder of manifests, created if needed; None keeps none.
        scope: name of the manifest, e.g. a data folder and what is hashed of it, so
            that data sets do not overwrite each other's manifests.

    Returns:
        one hash per path; `UNREADABLE` for a file that cannot be read.
    """
    manifest = _manifest_path(cache_dir, scope)
    known = _read_json(manifest)
    files = [
        path if paths.is_remote(path) else Path(paths.on_disk(os.fspath(path)))
        for path in files
    ]

    def entry(path: paths.Path) -> tuple[Stamp | None, str]:
        stamp = _stamp(path)
        match known.get(os.fspath(path)):
            case [stored, str(digest)] if stored == stamp:
                return stamp, digest
        digest = hash_file(path)
        changed_meanwhile = _stamp(path) != stamp
        if digest == UNREADABLE or changed_meanwhile or not _settled(stamp):
            stamp = None
        return stamp, digest

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as executor:
        entries = list(executor.map(entry, files))
    fresh = {
        os.fspath(path): [stamp, digest]
        for path, (stamp, digest) in zip(files, entries, strict=True)
        if stamp is not None
    }
    if any(known.get(path) != fresh[path] for path in fresh):
        # Keeps entries of files that this run leaves out (num_images, split).
        _write_json(manifest, known | fresh)
    return tuple(digest for _, digest in entries)


def hash_texts(parts: Sequence[str | bytes]) -> str:
    """Returns the sha256 over several texts, each prefixed with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_tables(files: Sequence[paths.Path]) -> str:
    """Returns the sha256 over the names and contents of small files.

    Raises:
        UserError: a file cannot be read.
    """
    parts: list[str | bytes] = []
    for path in files:
        try:
            parts += [path.name, paths.read_bytes(path)]
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    return hash_texts(parts)


def hash_records(
    read: Callable[[int], bytes],
    wanted: Sequence[int],
    files: Sequence[paths.Path],
    cache_dir: Path | None,
    scope: str,
) -> tuple[str, ...]:
    """Returns the sha256 of selected records inside a few large files.

    Args:
        read: returns the bytes of a record.
        wanted: numbers of the records.
        files: the files with the records; stored hashes are valid while no file
            changes.
        cache_dir: see `hash_files`.
        scope: see `hash_files`.

    Returns:
        one hash per record, in hex.
    """
    there = files if cache_dir is not None else ()  # else nothing to compare
    stamps = {os.fspath(path): _stamp(path) for path in there}
    manifest = _manifest_path(cache_dir, scope) if stamps else None
    known: dict[str, str] = {}
    if manifest is not None:
        stored = _read_json(manifest)
        hashes = stored.get("hashes")
        if stored.get("stamps") == stamps and isinstance(hashes, dict):
            known = {str(number): str(digest) for number, digest in hashes.items()}
    missing = [number for number in wanted if str(number) not in known]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as executor:
        fresh = executor.map(
            lambda number: hashlib.sha256(read(number)).hexdigest(), missing
        )
        known |= {
            str(number): digest for number, digest in zip(missing, fresh, strict=True)
        }
    if missing and all(map(_settled, stamps.values())):
        _write_json(manifest, {"stamps": stamps, "hashes": known})
    return tuple(known[str(number)] for number in wanted)


def _stamp(path: paths.Path) -> Stamp | None:
    try:
        with paths.reaching(path):
            status: Any = path.stat()  # of a URL, as epath has it
    except OSError:
        return None
    if paths.is_remote(path):
        moment = status.mtime * 1_000_000_000
        return [0, status.length, moment, moment] if moment else None
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _settled(stamp: Stamp | None) -> bool:
    if stamp is None:
        return False
    now = time.time_ns()
    settled = _SETTLED_NS if stamp[0] else _SETTLED_REMOTE_NS
    return all(abs(now - moment) > settled for moment in stamp[2:])


def _manifest_path(cache_dir: Path | None, scope: str) -> Path | None:
    if cache_dir is None:
        return None
    key = hashlib.sha256(os.fsencode(scope)).hexdigest()[:24]
    return Path(cache_dir) / f"hashes-{key}.json"


def _read_json(manifest: Path | None) -> dict[str, Any]:
    """Returns a manifest's content; empty if the file is missing or damaged."""
    if manifest is None:
        return {}
    try:
        stored = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write_json(manifest: Path | None, content: dict[str, Any]) -> None:
    """Writes atomically, so that two concurrent runs leave one whole file."""
    if manifest is None:
        return
    with contextlib.suppress(OSError):
        manifest.parent.mkdir(parents=True, exist_ok=True)
        write_whole(manifest, json.dumps(content).encode())
