"""Label maps on disk, so that no image is segmented twice.

A segmenter takes about half a second an image, reading its maps back a fraction of a
millisecond. Entries are found by key alone, a hash of everything that the maps depend
on, which the caller makes (`identity.digest`): a key whose maps could change is a wrong
key, and an entry is never out of date.

`FOLDER/ab/abcd...` is the entry of key 'abcd...', all numbers little-endian:

    magic "jdlm" | version u16 | "i2" | key, 32 bytes | maps, height, width u32 |
    the maps, zlib | sha256 of all that, 32 bytes

Only an entry whose every byte is accounted for is believed: one cut short, altered,
longer or renamed counts as missing, and the next `put` replaces it. That is also the
guard after a loss of power, as entries are not synced to the disk one by one.

Threads, processes and hosts may share a folder. Entries are written aside and renamed,
so nobody sees half of one, and who is killed leaves at most a temporary file. There are
no locks between processes: they all write the same maps under the same key.
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

MAX_MAP_BYTES = 1 << 26  # of an entry, unpacked; 6 maps of 2364 x 2364
STALE_SECONDS = 3600  # a temporary file of this age belongs to nobody

_HEADER = struct.Struct("<4sH2s32s3I")
_MAGIC, _VERSION, _DTYPE = b"jdlm", 1, b"i2"
_HASH_BYTES = hashlib.sha256().digest_size
# On maps of 6x56x56: 13 % smaller than level 1 for 0.2 ms; levels above gain 2 %.
_LEVEL = 4
# zlib adds five bytes to 16 KB that it cannot compress, and a frame.
_MAX_FILE_BYTES = MAX_MAP_BYTES + MAX_MAP_BYTES // 1024 + 4096
_FILL = 0.9  # of the bound, when old entries have been deleted
_UNSEEN = 0.05  # of the bound, written before looking what other runs have written

_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{2}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{32}\.tmp")


class LabelCache:
    """Label maps by key, in a folder.

    Nothing that goes wrong in the folder stops a run: what cannot be read is missing,
    and after the first failure to write there is one warning and no further attempt;
    reading goes on. Methods may be called from several threads.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        max_bytes: int = 0,
        warn: Callable[[str], None] = LOG.warning,
    ):
        """Nothing is read or written yet.

        Args:
          folder: of the entries, made when the first is written; None: a cache that
            never has anything and keeps nothing.
          max_bytes: bound on the sizes of all entries together; the oldest written are
            deleted to keep it. 0: no bound. Other runs' entries count, but one looks
            for them only now and then: each run that writes at the same time may
            exceed the bound by a twentieth, for a while.
          warn: is given the warning, a line; by default printed to standard error.
        """
        self._folder = None if folder is None else Path(folder)
        self._max_bytes = max_bytes
        self._warn = warn
        self._lock = threading.Lock()
        self._writes = folder is not None
        self._total: int | None = None  # bytes of all entries; None: not yet looked
        self._unseen = 0  # bytes written since looking

    def get(self, key: str) -> Int16[np.ndarray, "maps height width"] | None:
        """The maps of a key, None if they are not there or not to be trusted.

        Args:
          key: 64 hexadecimal digits, lower case.

        Returns:
          an array of the caller's own, contiguous and writable.

        Raises:
          ValueError: that is not a key.
        """
        _check_key(key)
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            if not path.is_file():  # opening a pipe would wait for its other end
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
        """Keeps maps under a key, in place of what is there.

        Maps of more than MAX_MAP_BYTES, or more than the cache's bound, are not kept.

        Args:
          key: 64 hexadecimal digits, lower case.
          maps: int16, no side of it 0.

        Raises:
          ValueError: that is no key, or those are no label maps.
        """
        _check_key(key)
        maps = np.asarray(maps)
        if maps.dtype != np.int16 or maps.ndim != 3 or not maps.size:
            raise ValueError(
                f"label maps are int16[maps, height, width], not {maps.dtype}"
                f"[{', '.join(map(str, maps.shape))}]"
            )
        if not self._writes or maps.nbytes > MAX_MAP_BYTES:
            return
        entry = _pack(key, maps)
        # One writer at a time, or what another is writing is missing in a sum.
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
                    f"label maps are not kept: {self._folder}: {reason}; "
                    "the run goes on without"
                )

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _write(self, key: str, entry: bytes) -> None:
        path = self._path(key)
        aside = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
        try:
            _write_and_rename(aside, path, entry)
        except FileNotFoundError:  # first of its folder, or somebody cleared the cache
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_and_rename(aside, path, entry)

    def _make_room(self, size: int) -> bool:
        """Deletes what has to go so that `size` bytes more keep the bound.

        Returns:
          Whether they do: never so if they alone exceed it.

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
        """Removes stale temporary files and, if need be, the oldest entries.

        Returns:
          bytes of the entries that stay; 0 if there is no bound to keep.
        """
        entries = []
        for file in self._files():
            if _TEMPORARY.fullmatch(file.name):
                with contextlib.suppress(OSError):  # another user's, or just renamed
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

    def _files(self) -> Iterator[os.DirEntry]:
        for shard in _listed(self._folder):
            if _SHARD.fullmatch(shard.name) and shard.is_dir(follow_symlinks=False):
                for file in _listed(shard.path):
                    if file.is_file(follow_symlinks=False):
                        yield file


def _check_key(key: str) -> None:
    # A key becomes a path.
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: 64 hexadecimal digits in lower case")


def _listed(folder: str | os.PathLike) -> list[os.DirEntry]:
    """What is in a folder; nothing if there is none."""
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
    """The maps; None for anything but what `_pack` makes for this key."""
    if len(entry) < _HEADER.size + _HASH_BYTES:
        return None
    content = memoryview(entry)[:-_HASH_BYTES]
    if hashlib.sha256(content).digest() != entry[-_HASH_BYTES:]:
        return None
    magic, version, dtype, owner, *shape = _HEADER.unpack_from(entry)
    if (magic, version, dtype, owner.hex()) != (_MAGIC, _VERSION, _DTYPE, key):
        return None
    # A checksum is no signature: anybody can make an entry that unpacks to a terabyte.
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
    """Raises: OSError; nothing new is left behind."""
    try:
        with aside.open("xb") as file:
            file.write(content)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
