"""Content hashes of files, with a manifest that spares reading them again.

The manifest trusts a stored hash while a file's inode, size, mtime and ctime are as
they were; of an object in a store while its size and mtime are, where the store tells
them. A file that changed at about the moment it was hashed could change once more
within the clock's granularity and look the same, so such a file is not recorded.
A manifest is a convenience: where it cannot be read or written, files are read.
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
_SETTLED_NS = 2_000_000_000  # the coarsest time stamps in use (FAT) step by 2 s
_SETTLED_REMOTE_NS = 60_000_000_000  # mtimes of a store are seconds of its own clock
_THREADS = 8  # hashing and reading both release the interpreter's lock

Stamp = list[int]  # inode (0: in a store), size, mtime_ns, ctime_ns


def hash_file(path: paths.Path) -> str:
    """sha256 of a file's bytes in hexadecimal, `UNREADABLE` if `opened` refuses it.

    Raises:
        UserError: the file's store cannot be reached, or refuses.
    """
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


def hash_files(
    files: Sequence[paths.Path], cache_dir: Path | None, scope: str
) -> tuple[str, ...]:
    """sha256 of each file's bytes, in hexadecimal.

    Args:
        files: absolute paths.
        cache_dir: folder of manifests, made if need be; None: keep none.
        scope: one manifest a scope, e.g. a data folder and what of it is hashed, so
            that two data sets do not overwrite each other's.

    Returns:
        a hash a path; `UNREADABLE` for a file that cannot be read.
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
        # Entries of files that this run leaves out (num_images, split) stay.
        _write_json(manifest, known | fresh)
    return tuple(digest for _, digest in entries)


def hash_texts(parts: Sequence[str | bytes]) -> str:
    """sha256 over several texts, each with its length, so that none run together."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_tables(files: Sequence[paths.Path]) -> str:
    """sha256 over the names and contents of small files.

    Raises:
        UserError: one cannot be read.
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
    """sha256 of some of the records that lie inside a few large files.

    Args:
        read: gives the bytes of a record.
        wanted: numbers of the records.
        files: what holds them; stored hashes count while all are as they were.
        cache_dir: as in `hash_files`.
        scope: as in `hash_files`.

    Returns:
        a hash a record, in hexadecimal.
    """
    there = files if cache_dir is not None else ()  # no manifest, nothing to compare
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
            status = path.stat()
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
    """What is stored; nothing where the file is missing or damaged."""
    if manifest is None:
        return {}
    try:
        stored = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write_json(manifest: Path | None, content: dict[str, Any]) -> None:
    """Writes aside, then renames: two runs at once leave one whole file."""
    if manifest is None:
        return
    with contextlib.suppress(OSError):
        manifest.parent.mkdir(parents=True, exist_ok=True)
        write_whole(manifest, json.dumps(content).encode())
