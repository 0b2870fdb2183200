"""Saves the state of an unfinished run on disk, in Orbax's format.

    FOLDER/00012000/state            every array of the state, flat, by name
    FOLDER/00012000/checkpoint.json  step, hash of the arrays, and the caller's notes

A checkpoint is written to a temporary folder and renamed, so that an interrupted write
leaves none. In an object store, where a folder cannot be renamed atomically,
checkpoint.json is written last (and removed first): without it the checkpoint does not
exist. A checkpoint damaged later is skipped in favor of the one before.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.log import LOG
from jdissect.base.paths import Path
from jdissect.checkpoints import orbax_io
from jdissect.checkpoints.weights import weights_sha256

KEEP = 2  # number of latest checkpoints to keep


class Checkpoints:
    """The checkpoints of a run.

    Args:
      folder: folder of the checkpoints; created with the first one.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = paths.absolute(paths.to_path(folder))
        self._remote = paths.is_remote(self.folder)

    def steps(self) -> list[int]:
        """Returns the steps of the existing checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if path.name.isdecimal()]
        return sorted(int(path.name) for path in found if self._is_there(path))

    def path(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        """Writes a checkpoint and removes all but the last `KEEP`.

        Args:
          step: step of the state; an existing checkpoint of that step is left as is.
          state: a pytree of arrays.
          notes: JSON, restored together with the state.
        """
        path = self.path(step)
        if self._is_there(path):
            return
        arrays = flat(state)
        content = {"step": step, "sha256": weights_sha256(arrays), **notes}
        paths.make_folder(self.folder)
        self._remove_cut_off()
        try:
            with paths.reaching(path), self._appearing(path) as place:
                orbax_io.write(place / "state", arrays)
                text = json.dumps(content, indent=2)
                write_whole(place / "checkpoint.json", (text + "\n").encode())
        except UserError:
            raise
        except ValueError as error:  # from TensorStore, e.g. a full disk
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"cannot write {path}: {reason}") from error
        for old in self.steps()[:-KEEP]:
            self._remove(self.path(old))

    def restore(self, like: Any = None) -> tuple[Any, dict[str, Any]] | None:
        """Returns the last valid checkpoint as (state, notes), or None.

        Args:
          like: a state of the same structure and shapes; by default the state is a
            dict of arrays by name.

        Raises:
          UserError: there are checkpoints, but none is valid or of this structure.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            path = self.path(step)
            try:
                notes = json.loads(paths.read_bytes(path / "checkpoint.json"))
                arrays = dict(orbax_io.read(path / "state"))
                if weights_sha256(arrays) != notes["sha256"]:
                    raise ValueError("its arrays differ from those written")
                state = arrays if like is None else unflattened(like, arrays)
            except Exception as error:  # Orbax and TensorStore raise many types
                reason = (str(error) or type(error).__name__).splitlines()[0][:200]
                LOG.warning("skipping checkpoint %s: %s", path, reason)
                damaged.append(path)
                continue
            # Later checkpoints than the restored one will be written again.
            for path in damaged:
                self._discard(path)
            return state, notes
        if steps:
            raise UserError(
                f"none of the checkpoints in {self.folder} can be read; --overwrite "
                "starts over"
            )
        return None

    def _is_there(self, path: Path) -> bool:
        return (path / "checkpoint.json" if self._remote else path).exists()

    @contextlib.contextmanager
    def _appearing(self, path: Path) -> Iterator[Path]:
        """Yields a temporary path that appears at `path` once complete."""
        if self._remote:
            yield path
            return
        aside = self.folder / f".{path.name}.{os.getpid()}.tmp"
        aside.mkdir()
        try:
            yield aside
            aside.rename(path)
        finally:
            paths.remove_folder(aside)

    def _remove(self, path: Path) -> None:
        if self._remote:
            (path / "checkpoint.json").unlink(missing_ok=True)
        paths.remove_folder(path)

    def _discard(self, path: Path) -> None:
        if self._remote:
            self._remove(path)
            return
        damaged = path.with_name(f".{path.name}.damaged")
        paths.remove_folder(damaged)
        with contextlib.suppress(OSError):
            path.rename(damaged)

    def _remove_cut_off(self) -> None:
        if not self._remote:
            cut_off = self.folder.glob(".*.tmp")
        elif self.folder.is_dir():
            found = [path for path in self.folder.iterdir() if path.name.isdecimal()]
            cut_off = [path for path in found if not self._is_there(path)]
        else:
            cut_off = []
        for path in cut_off:
            paths.remove_folder(path)


def flat(state: Any) -> dict[str, np.ndarray]:
    """Returns every array of a pytree, on the host, by its path."""
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(state)}


def unflattened(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Restores a pytree from the arrays of `flat`.

    Raises:
      ValueError: names, shapes or types differ from those of `like`.
    """
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in _named_leaves(like)}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if expected != found:
        odd = [
            name
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        raise ValueError(f"it holds another state, such as {odd[0]}")
    return jax.tree.unflatten(
        jax.tree.structure(like), [arrays[name] for name in expected]
    )


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
