"""Checks what a PyTorch file claims to hold before PyTorch opens it.

A pickle says how large its arrays are, and PyTorch allocates that much, or reads beyond
the file's end. This module walks the pickle with stand-ins for everything that it
names, so that nothing runs and nothing is allocated, and compares its claims with the
file's size.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jdissect.base.errors import UserError
from jdissect.base.printable import printable

_MAGIC = 0x1950A86A20F9469CFC6C  # first value in files before PyTorch 1.6
# Bytes per number, by storage; others have at least 1.
_SIZES = {
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
}
# Maximum repetitions of a storage's numbers in a tensor (`Tensor.expand`).
_REPEATED = 1 << 20


def check(path: Path) -> None:
    """Rejects a file that claims more than it holds.

    Raises:
      UserError: a claim is too large; the message names the tensor.
      Exception: of many types, if the file is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"
        file.seek(0)
        walk = _walk_zip if is_zip else _walk_legacy
        walker, content, room = walk(file, path, size)
    names = dict(_named(content))
    largest: dict[str, int] = {}
    for storage in walker.storages:
        largest[storage.key] = max(storage.bytes, largest.get(storage.key, 0))
        total = sum(largest.values()) if room[""] else 0
        if storage.bytes > room.get(storage.key, room[""]) or total > size:
            name = names.get(id(storage), f"storage {printable(storage.key)}")
            _refuse(path, size, name, storage.bytes)
    for tensor in walker.tensors:
        _check_tensor(tensor, path, size, names.get(id(tensor), "a tensor"))
    for what, count in walker.counts:
        if count > size:
            _refuse(path, size, f"a {printable(what)}", count)


class _Storage:
    """Numbers in the file."""

    def __init__(self, key: str, count: int, item: int):
        self.key, self.count, self.bytes = key, count, count * item


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple):
        self.storage, self.offset = storage, offset
        self.shape, self.strides = tuple(shape), tuple(strides)
        numbers = (offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"a tensor of {numbers}")


class _Walker(pickle._Unpickler):
    """Unpickles with stand-ins. In Python: C's allocates what memo numbers claim."""

    def __init__(self, file: IO[bytes], storages: list, tensors: list, counts: list):
        super().__init__(file, encoding="latin1")
        self.storages, self.tensors, self.counts = storages, tensors, counts

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.startswith("torch") and name.startswith("_rebuild_"):
            return lambda *given: self._rebuilt(name, given)
        return type(name, (_Thing,), {"walker": self})

    def _rebuilt(self, name: str, given: tuple) -> Any:
        if name.startswith("_rebuild_parameter"):
            return given[0]
        if name == "_rebuild_from_type_v2":
            return given[0](*given[2])
        if given and isinstance(given[0], _Storage):
            return self.tensor(*given[:4])
        return _Thing()

    def tensor(self, *given) -> _Tensor:
        self.tensors.append(_Tensor(*given))
        return self.tensors[-1]

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return _Thing()
        _, kind, key, _, count = pid[:5]
        if type(count) is not int or count < 0:
            raise ValueError(f"a storage of {count!r} numbers")
        storage = _Storage(str(key), count, _SIZES.get(kind.__name__, 1))
        self.storages.append(storage)
        return storage


class _Thing:
    """Stands in for an object of any class; records sizes passed to a constructor."""

    walker: _Walker | None = None

    def __init__(self, *given, **more):
        del more
        name = type(self).__name__
        if self.walker is None or not name.endswith(("Tensor", "Storage", "bytearray")):
            return
        for value in given:
            numbers = value if isinstance(value, tuple | list) else (value,)
            numbers = [n for n in numbers if type(n) is int]
            if numbers:
                self.walker.counts.append((name, math.prod(map(abs, numbers))))

    def __new__(cls, *given, **more):
        made = super().__new__(cls)
        # As a call would do; what is unsound of it in general is meant here.
        made.__init__(*given, **more)  # type: ignore[misc]
        return made

    def __call__(self, *given, **more):
        return _Thing()

    def __setstate__(self, state):
        fits = isinstance(state, tuple) and len(state) == 4
        if self.walker is not None and fits and isinstance(state[0], _Storage):
            self.walker.tensor(*state)

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    add = append


def _walk_zip(file: IO[bytes], path: Path, size: int) -> tuple[_Walker, Any, dict]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        sizes = {entry.filename: entry.file_size for entry in entries}
        packed = [e.filename for e in entries if e.file_size != e.compress_size]
        if packed or len(sizes) < len(entries) or sum(sizes.values()) > size:
            raise UserError(
                f"checkpoint {path} is not an archive in PyTorch's format; save "
                "it again with torch.save"
            )
        root = entries[0].filename.split("/")[0]
        with archive.open(f"{root}/data.pkl") as pickled:
            walker = _Walker(pickled, [], [], [])
            content = walker.load()
    start = f"{root}/data/"
    room = {k.removeprefix(start): v for k, v in sizes.items() if k.startswith(start)}
    return walker, content, {"": 0, **room}


def _walk_legacy(file: IO[bytes], path: Path, size: int) -> tuple[_Walker, Any, dict]:
    kept: tuple[list, list, list] = [], [], []
    walker = _Walker(file, *kept)
    content = walker.load()
    if content == _MAGIC:
        for _ in range(2):  # the format version, and the machine's number types
            _Walker(file, *kept).load()
        content = _Walker(file, *kept).load()
        _Walker(file, *kept).load()  # the storages' order
    return walker, content, {"": size - file.tell()}


def _check_tensor(tensor: _Tensor, path: Path, size: int, name: str) -> None:
    count = math.prod(tensor.shape)
    if not count:
        return
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    repeats = count > tensor.storage.count and count > _REPEATED
    if last >= tensor.storage.count or repeats:
        raise UserError(
            f"checkpoint {path} is damaged: {name} {list(tensor.shape)} claims "
            f"{count:,} numbers, but has {tensor.storage.count:,}; download it again"
        )


def _refuse(path: Path, size: int, name: str, claimed: int) -> None:
    raise UserError(
        f"checkpoint {path} is damaged: {name} claims {claimed:,} bytes, but the whole "
        f"file has {size:,}; download it again"
    )


def _named(content: Any) -> Iterator[tuple[int, str]]:
    """Yields (id, name) of the tensors in nested dicts, and of their storages."""
    left, seen = [("", content)], set()
    while left:
        name, value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _Tensor):
            yield id(value), printable(name)
            yield id(value.storage), printable(name)
        elif isinstance(value, dict):
            items = [(k, v) for k, v in value.items() if isinstance(k, str | int)]
            left += [(f"{name}.{k}" if name else str(k), v) for k, v in items]
