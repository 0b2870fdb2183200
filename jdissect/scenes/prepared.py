"""Draws pictures once and keeps them on disk, for training over many epochs.

    from jdissect.scenes import open_scenes, prepare

    prepare("build/scenes", "train")
    source = open_scenes("train", prepared="build/scenes")

A folder SPLIT-SEED holds `pixels.npy` uint8[n, 112, 112, 3], `labels.npy`
int16[n, 4, 112, 112] and `manifest.json`. Pictures are drawn in chunks that are written
atomically, so an interrupted preparation resumes; the arrays appear whole, the manifest
last.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.progress import counting
from jdissect.runtime import resources
from jdissect.scenes.render import render
from jdissect.scenes.splits import resolve, split_number
from jdissect.scenes.world import GENERATOR_VERSION, MAPS, SIDE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy has no module that may be absent

_CHUNK = 250  # pictures per task; 34 MB
_ARRAYS = {
    "pixels": (np.uint8, (SIDE, SIDE, 3)),
    "labels": (np.int16, (len(MAPS), SIDE, SIDE)),
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A folder of prepared pictures; the arrays are memory-mapped on first read.

    Attributes:
        folder: folder of one split and seed.
        count: number of pictures, 0 .. count - 1.
    """

    folder: Path
    count: int

    def read(
        self, index: int
    ) -> tuple[UInt8[np.ndarray, "side side 3"], Int16[np.ndarray, "4 side side"]]:
        """Returns pixels and label maps of a picture, as `render` does."""
        arrays = self._arrays
        return np.array(arrays["pixels"][index]), np.array(arrays["labels"][index])

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            name: np.load(self.folder / f"{name}.npy", mmap_mode="r")
            for name in _ARRAYS
        }

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "count": self.count}


def open_prepared(root: Path, split: str, seed: int) -> Prepared | None:
    """Opens what `prepare` wrote in `root` for a split and seed; None if nothing.

    Raises:
        UserError: it is from another version of the generator, or damaged.
    """
    folder = _folder(root, split, seed)
    manifest = _read_manifest(folder)
    if manifest is None:
        return None
    for name, (dtype, shape) in _ARRAYS.items():
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            array = None
        if (
            array is None
            or array.dtype != dtype
            or array.shape != (manifest["count"], *shape)
        ):
            raise UserError(f"{path} is damaged; delete {folder} and prepare it again.")
    return Prepared(folder, manifest["count"])


def prepare(
    folder: Path | str,
    split: str,
    count: int = 0,
    *,
    seed: int = 0,
    processes: int = 0,
) -> Path:
    """Draws the first pictures of a split into memory-mapped arrays.

    Args:
        folder: folder for any number of splits and seeds.
        split: 'train', 'validation' or 'probe'.
        count: number of pictures; 0: as many as the split has. Nothing is done if as
            many exist already.
        seed: seed of the world.
        processes: number of drawing processes; 0: one per core.

    Returns:
        the folder of the split and seed.

    Raises:
        UserError: the split does not exist, a number is negative, or the pictures are
            from another version.
    """
    count = resolve(split, count, seed)
    place = _folder(Path(folder), split, seed)
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place):
        there = open_prepared(Path(folder), split, seed)
        done = 0 if there is None else there.count
        if done < count:
            _extend(place, split, seed, done, count, processes)
    return place


def _extend(
    place: Path, split: str, seed: int, done: int, count: int, processes: int
) -> None:
    """Draws pictures done .. count - 1 and appends them to the existing ones."""
    chunks = place / f"chunks-{GENERATOR_VERSION}"
    chunks.mkdir(exist_ok=True)
    tasks = [
        (chunks, seed, split_number(split), start, min(start + _CHUNK, count))
        for start in range(done, count, _CHUNK)
    ]
    with counting(f"scenes {split}", count, start=done) as task:
        for drawn in _run(tasks, processes):
            task.advance(drawn)
    asides = {name: _join(place, name, tasks, done, count) for name in _ARRAYS}
    manifest = {
        "generator_version": GENERATOR_VERSION,
        "split": split,
        "seed": seed,
        "count": count,
        "sha256": {name: _digest(aside) for name, aside in asides.items()},
    }
    # Without a manifest the folder counts as empty, so no mix is ever read.
    (place / "manifest.json").unlink(missing_ok=True)
    for name, aside in asides.items():
        aside.replace(place / f"{name}.npy")
    write_whole(place / "manifest.json", json.dumps(manifest, indent=1).encode())
    shutil.rmtree(chunks, ignore_errors=True)


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Waits until no other process prepares the same folder (where files lock)."""
    with (place / ".lock").open("wb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder(root: Path, split: str, seed: int) -> Path:
    return root.expanduser() / f"{split}-{seed}"


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        version, _ = manifest["generator_version"], int(manifest["count"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; delete the folder.") from None
    if version != GENERATOR_VERSION:
        raise UserError(
            f"{folder} holds pictures of version {version} of the generator, this "
            f"is version {GENERATOR_VERSION}; delete it and prepare it again."
        )
    return manifest


def _run(tasks: list[tuple], processes: int) -> Iterator[int]:
    """Draws the chunks; yields the number of pictures of each."""
    processes = min(processes or resources.cores(), len(tasks))
    if processes <= 1:
        yield from map(_draw, tasks)
        return
    context = multiprocessing.get_context("spawn")  # the caller may have threads
    with concurrent.futures.ProcessPoolExecutor(processes, context) as executor:
        yield from executor.map(_draw, tasks)


def _draw(task: tuple[Path, int, int, int, int]) -> int:
    """Draws one chunk into a file, unless the file exists."""
    folder, seed, split, start, end = task
    path = _chunk(folder, start, end)
    if not path.exists():
        pictures = [render(seed, split, index) for index in range(start, end)]
        aside = path.with_suffix(f".{os.getpid()}.npz")
        try:
            with aside.open("wb") as file:
                np.savez(
                    file,
                    pixels=np.stack([pixels for pixels, _ in pictures]),
                    labels=np.stack([labels for _, labels in pictures]),
                )
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return end - start


def _chunk(folder: Path, start: int, end: int) -> Path:
    return folder / f"{start:08d}-{end:08d}.npz"


def _join(place: Path, name: str, tasks: list[tuple], done: int, count: int) -> Path:
    """Joins the chunks' arrays to the existing ones in a temporary file."""
    dtype, shape = _ARRAYS[name]
    aside = place / f".{name}.npy"
    whole = np.lib.format.open_memmap(
        aside, mode="w+", dtype=dtype, shape=(count, *shape)
    )
    if done:
        whole[:done] = np.load(place / f"{name}.npy", mmap_mode="r")
    for folder, _, _, start, end in tasks:
        with np.load(_chunk(folder, start, end)) as chunk:
            whole[start:end] = chunk[name]
    whole.flush()
    return aside


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
