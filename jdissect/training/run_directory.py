"""The directory of a training: what it is, its metrics, whether it may go on.

config.json      the configuration
training.json    format_version, status ('running', 'finished'), identity, result
metrics.jsonl    an object a line: of a step, or of an evaluation
checkpoints/     see `checkpoints`
model/           the trained network, a checkpoint folder of `jdissect.checkpoints`
"""

import io
import json
import os
from collections.abc import Mapping
from typing import Any

from jdissect import paths
from jdissect.errors import UserError
from jdissect.files import write_whole
from jdissect.states import Checkpoints

FORMAT_VERSION = 1


class RunDirectory:
    """A training's directory.

    Args:
      folder: its path.
      identity: JSON, everything that decides what is trained, by name.
    """

    def __init__(self, folder: str | os.PathLike, identity: Mapping[str, Any]):
        self.folder = paths.from_user(folder)
        self.identity = json.loads(json.dumps(dict(identity)))
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.metrics = self.folder / "metrics.jsonl"
        self.model = self.folder / "model"

    def result(self, overwrite: bool) -> dict[str, Any] | None:
        """What the finished training of this identity found; None: it is to be run.

        Raises:
          UserError: something else is there.
        """
        stored = self._stored()
        if stored is None or overwrite:
            return None
        there = stored["identity"]
        changed = [
            key
            for key in dict.fromkeys([*self.identity, *there])
            if self.identity.get(key) != there.get(key)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds a training of another configuration (different: "
                f"{', '.join(changed)}); give another --workdir, or --overwrite to "
                "replace it"
            )
        return stored["result"] if stored["status"] == "finished" else None

    def begin(self, config: Mapping[str, Any], overwrite: bool) -> None:
        """Makes the directory ready; an unfinished training stays, or is replaced.

        Raises:
          UserError: it cannot be made or written.
        """
        try:
            paths.make_folder(self.folder)
            self._begin(config, overwrite)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror}; give another "
                "--workdir"
            ) from error

    def _begin(self, config, overwrite):
        if overwrite:
            # The state first: whenever this is cut off, no other run's is taken up.
            paths.remove_folder(self.checkpoints.folder)
            paths.remove_folder(self.model)
            self.metrics.unlink(missing_ok=True)
        self._write_status("running", None)
        self._write("config.json", config)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Says that the training is over and what it found."""
        self._write_status("finished", dict(result))

    def _stored(self) -> dict[str, Any] | None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; give another --workdir")
        path = self.folder / "training.json"
        if not path.is_file():
            if self.folder.is_dir() and not paths.is_empty(self.folder):
                raise UserError(
                    f"{self.folder} is not empty and holds no training; give another "
                    "--workdir"
                )
            return None
        try:
            stored = json.loads(path.read_text())
            version = stored["format_version"]
            stored["status"], stored["result"], stored["identity"].items()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged; give another --workdir") from None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this program's is "
                f"{FORMAT_VERSION}; give another --workdir"
            )
        return stored

    def _write_status(self, status, result):
        content = {
            "format_version": FORMAT_VERSION,
            "status": status,
            "identity": self.identity,
            "result": result,
        }
        self._write("training.json", content)

    def _write(self, name, content):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_whole(self.folder / name, (text + "\n").encode())


class Metrics:
    """`metrics.jsonl`, open for appending.

    An object in a store cannot grow: it is written anew with every record.

    Args:
      path: of the file.
      length: bytes of it to keep; what came later is written anew.
    """

    def __init__(self, path: paths.Path, length: int = 0):
        self._object = path if paths.is_remote(path) else None
        if self._object is None:
            self._file = path.open("ab")
        else:
            self._file = io.BytesIO(path.read_bytes() if path.exists() else b"")
            self._file.seek(0, os.SEEK_END)
        self._file.truncate(min(length, self._file.tell()))
        # Truncating leaves the position behind the end, and `length` is the position.
        self._file.seek(0, os.SEEK_END)

    def append(self, record: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()
        if self._object is not None:
            write_whole(self._object, self._file.getvalue())

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        self.close()
