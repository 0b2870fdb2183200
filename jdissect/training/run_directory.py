"""Manages the directory of a training run: its identity, metrics, and resuming.

config.json      the configuration
training.json    format_version, status ('running', 'finished'), identity, result
metrics.jsonl    one object per line: a step, or an evaluation
tensorboard/     the same as event files, and wandb/ files of Weights & Biases, if
                 `config.train.metrics` asks for them
checkpoints/     see `run_state`
model/           the trained network, a checkpoint folder of `jdissect.checkpoints`

A training run that replaces a finished one is made in a directory of its own inside it
(see `replacing`): the old network stays until the new one is complete.
"""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from typing import Any

from jdissect.base import paths, replacing
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.training.metric_writers import Writer

FORMAT_VERSION = 1
MARK = "training.json"
_SERVICES = ("tensorboard", "wandb")
_OWN = (MARK, "config.json", "metrics.jsonl", "checkpoints", "model", *_SERVICES)


class RunDirectory:
    """The directory of a training run.

    Args:
      folder: path of the directory.
      identity: JSON, everything that determines what is trained, by name.

    Attributes:
      place: where the run is made: in `folder`, or beside a finished run there.
      checkpoints, metrics, model: files of the run that is made.
    """

    def __init__(self, folder: str | os.PathLike, identity: Mapping[str, Any]):
        self.folder = paths.from_user(folder)
        self.identity = json.loads(json.dumps(dict(identity)))
        self._new: list[paths.Path] = []
        self._make_at(self.folder)

    def _make_at(self, place: paths.Path) -> None:
        self.place = place
        self.checkpoints = Checkpoints(place / "checkpoints")
        self.metrics = place / "metrics.jsonl"
        self.model = place / "model"

    def result(self, overwrite: bool) -> dict[str, Any] | None:
        """Returns the result of this identity's finished run, or None to train.

        Also chooses `place`.

        Args:
          overwrite: whether to replace an existing run: a finished one once this one is
            finished too, or an unfinished one of another identity. This very run, if
            unfinished, is resumed.

        Raises:
          UserError: something else is there.
        """
        stored = self._stored()
        self._make_at(self.folder)
        if stored is None:
            return None
        there = stored["identity"]
        changed = [
            key
            for key in dict.fromkeys([*self.identity, *there])
            if self.identity.get(key) != there.get(key)
        ]
        if changed and not overwrite:
            raise UserError(
                f"{self.folder} is a training run of another config (different: "
                f"{', '.join(changed)}); give another --workdir, or --overwrite to "
                "replace it"
            )
        if stored["status"] != "finished":
            return None
        if not overwrite:
            return stored["result"]
        place = replacing.replacement_of(self.folder, digest(self.identity))
        made = _read(place / MARK) or {}
        if made.get("status") == "finished" and made["identity"] == self.identity:
            return made["result"]  # complete except for the switch
        self._make_at(place)
        return None

    def settle(self) -> None:
        """Finishes an interrupted switch to a newer run."""
        replacing.finish_interrupted(self.folder, MARK, lambda _: _OWN)

    def begin(self, config: Mapping[str, Any], overwrite: bool) -> None:
        """Prepares `place`; keeps an unfinished run of this identity.

        Args:
          config: the whole config.
          overwrite: whether to start over if the saved state cannot be read.

        Raises:
          UserError: the directory cannot be created or written.
        """
        if not paths.is_remote(self.place):
            above = [self.place, *self.place.parents]
            self._new = [path for path in above if not path.exists()]
        try:
            replacing.finish_interrupted(
                self.folder, MARK, lambda _: _OWN, keep=self.place
            )
            paths.make_folder(self.place)
            self._begin(config, overwrite)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror}; give another "
                "--workdir"
            ) from error

    def _begin(self, config, overwrite):
        previous = _read(self.place / MARK) or {}
        going_on = previous.get("identity") == self.identity
        if not going_on or (overwrite and not self._can_go_on()):
            # The state first, so that no other run's state is ever resumed.
            paths.remove_folder(self.checkpoints.folder)
            for name in ("model", *_SERVICES):
                paths.remove_folder(self.place / name)
            self.metrics.unlink(missing_ok=True)
        self._write_status("running", None)
        self._write("config.json", config)

    def _can_go_on(self) -> bool:
        try:
            self.checkpoints.restore()
        except UserError:
            return False
        return True

    def abandon(self) -> None:
        """Removes what `begin` wrote, unless something was logged or saved since."""
        logged = self.metrics.is_file() and paths.read_bytes(self.metrics)
        if logged or self.checkpoints.steps():
            return
        for name in ("checkpoints", "model", *_SERVICES):
            paths.remove_folder(self.place / name)
        for name in (MARK, "config.json", "metrics.jsonl"):
            with contextlib.suppress(OSError):  # the earlier error matters more
                (self.place / name).unlink()
        for folder in self._new:
            try:
                folder.rmdir()
            except OSError:
                break

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the run as finished and stores its result."""
        self._write_status("finished", dict(result))
        if self.place != self.folder:
            replacing.switch(self.folder, self.place, MARK, lambda _: _OWN)
            self._make_at(self.folder)

    def _stored(self) -> dict[str, Any] | None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; give another --workdir")
        stored = _read(replacing.current(self.folder, MARK) / MARK)
        there = self.folder.is_dir() and not paths.is_empty(self.folder)
        if stored is None and there:
            raise UserError(
                f"{self.folder} is not empty and not a training run; give another "
                "--workdir"
            )
        return stored

    def _write_status(self, status, result):
        content = {
            "format_version": FORMAT_VERSION,
            "status": status,
            "identity": self.identity,
            "result": result,
        }
        self._write(MARK, content)

    def _write(self, name, content):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_whole(self.place / name, utf8(text + "\n"))


def _read(path: paths.Path) -> dict[str, Any] | None:
    """Returns the content of a `training.json`; None if there is none."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(paths.read_bytes(path))
        version = stored["format_version"]
        stored["status"], stored["result"], stored["identity"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; give another --workdir") from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, but this program reads "
            f"{FORMAT_VERSION}; give another --workdir"
        )
    return stored


class Metrics:
    """`metrics.jsonl`, open for appending.

    Objects in a store cannot be appended to, so they are rewritten with every record.

    Args:
      path: path of the file.
      length: bytes to keep; later records are written again.

    Attributes:
      writers: where else every record goes; closed with the file.
    """

    def __init__(self, path: paths.Path, length: int = 0):
        self.writers: list[Writer] = []
        self._path = path
        self._object = path if paths.is_remote(path) else None
        self._file: Any  # as open() gives it, or io.BytesIO
        if self._object is None:
            self._file = path.open("ab")
        else:
            self._file = io.BytesIO(path.read_bytes() if path.exists() else b"")
            self._file.seek(0, os.SEEK_END)
        self._file.truncate(min(length, self._file.tell()))
        # After truncating, the position must be moved to the end, as `length` uses it.
        self._file.seek(0, os.SEEK_END)

    def append(self, record: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()
        if self._object is not None:
            write_whole(self._object, self._file.getvalue())
        for writer in self.writers:
            writer.add(record)

    def records(self) -> list[dict[str, Any]]:
        """Returns the records written so far.

        Raises:
          UserError: a line is not a record.
        """
        content = paths.read_bytes(self._path) if self._path.exists() else b""
        try:
            found = [json.loads(line) for line in content[: self.length].splitlines()]
            if not all(isinstance(record["step"], int) for record in found):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self._path} is damaged") from None
        return found

    @property
    def length(self) -> int:
        """Number of bytes written so far."""
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        for writer in self.writers:
            writer.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        self.close()
