"""Caches label maps on disk, so that no image is segmented twice.

A segmenter takes about half a second per image; reading its maps back takes a fraction
of a millisecond. Entries are found by key alone, a hash of everything that the maps
depend on, which the caller computes (`identity.digest`): if the maps could change, the
key must, so an entry is never out of date.

`FOLDER/ab/abcd...` is the entry of key 'abcd...', all numbers little-endian:

    magic "jdlm" | version u16 | "i2" | key, 32 bytes | maps, height, width u32 |
    the maps, zlib | sha256 of all that, 32 bytes

An entry is used only if all its bytes are valid: a truncated, altered, longer or
renamed one counts as missing, and the next `put` replaces it. This also covers power
loss, as entries are not synced to the disk individually.

Threads, processes and hosts may share a folder. Entries are written to a temporary file
and renamed, so nobody reads half of one, and a killed writer leaves at most a temporary
file. Processes need no locks: they all write the same maps under the same key.
"""

import contextlib
import hashlib
import math
import os
import re
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from jdissect.base.log import LOG

MAX_MAP_BYTES = 1 << 26  # per entry, uncompressed; 6 maps of 2364 x 2364
STALE_SECONDS = 3600  # older temporary files were left by killed writers

_HEADER = struct.Struct("<4sH2s32s3I")
_MAGIC, _VERSION, _DTYPE = b"jdlm", 1, b"i2"
_HASH_BYTES = hashlib.sha256().digest_size
# On maps of 6x56x56: 13 % smaller than level 1 for 0.2 ms; higher levels gain 2 %.
_LEVEL = 4
# zlib adds five bytes per 16 KB that it cannot compress, and a frame.
_MAX_FILE_BYTES = MAX_MAP_BYTES + MAX_MAP_BYTES // 1024 + 4096
_FILL = 0.9  # share of the limit kept when old entries are deleted
_UNSEEN = 0.05  # share of the limit written before counting other runs' entries again

_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{2}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{32}\.tmp")


class LabelCache:
    """Label maps by key, in a folder.

    Errors in the folder never stop a run: what cannot be read counts as missing, and
    the first failed write gives one warning and ends writing, but not reading. Methods
    may be called from several threads.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        max_bytes: int = 0,
        warn: Callable[[str], None] = LOG.warning,
    ):
        """Prepares the cache without reading or writing anything.

        Args:
          folder: folder of the entries, created with the first one; None gives a cache
            that stays empty.
          max_bytes: limit on the total size of all entries; the oldest are deleted to
            keep it. 0: no limit. Other runs' entries count but are looked up only now
            and then: each concurrently writing run may temporarily exceed the limit
            by a twentieth.
          warn: called with the one-line warning; by default it is logged.
        """
        self._folder = None if folder is None else Path(folder)
        self._max_bytes = max_bytes
        self._warn = warn
        self._lock = threading.Lock()
        self._writes = folder is not None
        self._total: int | None = None  # bytes of all entries; None: not counted yet
        self._unseen = 0  # bytes written since counting

    def get(self, key: str) -> Int16[np.ndarray, "maps height width"] | None:
        """Returns the maps of a key; None if they are missing or invalid.

        Args:
          key: 64 lower-case hexadecimal digits.

        Returns:
          a new array, contiguous and writable.

        Raises:
          ValueError: `key` is not a key.
        """
        _check_key(key)
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            if not path.is_file():  # opening a pipe would block
                return None
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > _MAX_FILE_BYTES:
                    return None
                entry = file.read(size)
        except OSError:
            return None
        return _unpack(key, entry)

    def put(self, key: str, maps: Int16[np.ndarray, "maps height width"]) -> None:
        """Stores maps under a key, replacing an existing entry.

        Maps larger than MAX_MAP_BYTES or than the cache's limit are not stored.

        Args:
          key: 64 lower-case hexadecimal digits.
          maps: int16, without empty axes.

        Raises:
          ValueError: `key` is not a key, or `maps` are not label maps.
        """
        _check_key(key)
        maps = np.asarray(maps)
        if maps.dtype != np.int16 or maps.ndim != 3 or not maps.size:
            raise ValueError(
                f"label maps must be int16[maps, height, width], not {maps.dtype}"
                f"[{', '.join(map(str, maps.shape))}]"
            )
        if not self._writes or maps.nbytes > MAX_MAP_BYTES:
            return
        entry = _pack(key, maps)
        # One writer at a time, so that sums include what others are writing.
        with self._lock:
            if not self._writes:
                return
            try:
                if self._make_room(len(entry)):
                    self._write(key, entry)
            except OSError as error:
                self._writes = False
                reason = error.strerror or type(error).__name__
                self._warn(
                    f"label maps are not cached: {self._folder}: {reason}; "
                    "the run continues without"
                )

    def _path(self, key: str) -> Path:
        assert self._folder is not None  # else nothing is read or written
        return self._folder / key[:2] / key

    def _write(self, key: str, entry: bytes) -> None:
        path = self._path(key)
        aside = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
        try:
            _write_and_rename(aside, path, entry)
        except FileNotFoundError:  # first in its folder, or the cache was cleared
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_and_rename(aside, path, entry)

    def _make_room(self, size: int) -> bool:
        """Deletes old entries until `size` more bytes fit the limit.

        Returns:
          Whether they fit: False if they alone exceed the limit.

        Raises:
          OSError: the folder cannot be listed, or old entries cannot be deleted.
        """
        bound = self._max_bytes or math.inf
        fits = size <= bound
        added = size if fits else 0
        if (
            self._total is None
            or self._total + added > bound
            or self._unseen > _UNSEEN * bound
        ):
            self._total, self._unseen = self._prune(bound, added), 0
        self._total += added
        self._unseen += added
        return fits

    def _prune(self, bound: float, added: int) -> int:
        """Removes stale temporary files and, if needed, the oldest entries.

        Returns:
          bytes of the remaining entries; 0 without a limit.
        """
        entries = []
        for file in self._files():
            if _TEMPORARY.fullmatch(file.name):
                with contextlib.suppress(OSError):  # another user's, or renamed
                    age = time.time() - file.stat(follow_symlinks=False).st_mtime
                    if age > STALE_SECONDS:
                        Path(file.path).unlink()
            elif bound < math.inf and _KEY.fullmatch(file.name):
                with contextlib.suppress(FileNotFoundError):  # another run deleted it
                    status = file.stat(follow_symlinks=False)
                    entries.append((status.st_mtime_ns, status.st_size, file.path))
        total = sum(size for _, size, _ in entries)
        if total + added <= bound:
            return total
        entries.sort()
        for _, size, path in entries:
            if total + added <= max(_FILL * bound, added):
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        return total

    def _files(self) -> Iterator[os.DirEntry[str]]:
        assert self._folder is not None  # else nothing is read or written
        for shard in _listed(self._folder):
            if _SHARD.fullmatch(shard.name) and shard.is_dir(follow_symlinks=False):
                for file in _listed(shard.path):
                    if file.is_file(follow_symlinks=False):
                        yield file


def _check_key(key: str) -> None:
    # A key becomes a path.
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key: 64 lower-case hexadecimal digits")


def _listed(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder; none if it does not exist."""
    try:
        with os.scandir(folder) as files:
            return list(files)
    except FileNotFoundError:
        return []


def _pack(key: str, maps: np.ndarray) -> bytes:
    header = _HEADER.pack(_MAGIC, _VERSION, _DTYPE, bytes.fromhex(key), *maps.shape)
    packed = header + zlib.compress(maps.astype("<i2", copy=False).tobytes(), _LEVEL)
    return packed + hashlib.sha256(packed).digest()


def _unpack(key: str, entry: bytes) -> np.ndarray | None:
    """Returns the maps; None for anything but the output of `_pack` for this key."""
    if len(entry) < _HEADER.size + _HASH_BYTES:
        return None
    content = memoryview(entry)[:-_HASH_BYTES]
    if hashlib.sha256(content).digest() != entry[-_HASH_BYTES:]:
        return None
    magic, version, dtype, owner, *shape = _HEADER.unpack_from(entry)
    if (magic, version, dtype, owner.hex()) != (_MAGIC, _VERSION, _DTYPE, key):
        return None
    # A checksum is not a signature: a crafted entry could unpack to a terabyte.
    expected = 2 * math.prod(shape)
    if not 0 < expected <= MAX_MAP_BYTES:
        return None
    unpacking = zlib.decompressobj()
    try:
        numbers = unpacking.decompress(content[_HEADER.size :], expected + 1)
    except zlib.error:
        return None
    if len(numbers) != expected or not unpacking.eof or unpacking.unused_data:
        return None
    return np.frombuffer(numbers, "<i2").reshape(shape).astype(np.int16)


def _write_and_rename(aside: Path, path: Path, content: bytes) -> None:
    """Writes a file atomically. Raises OSError and leaves no partial file."""
    try:
        with aside.open("xb") as file:
            file.write(content)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
