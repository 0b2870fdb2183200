"""Finished run directories, read for what comes after a dissection.

What a run directory holds is written in `store` and `results`. Whoever reads one may
have it from somebody else, or from another version: everything is checked before it is
used, and what is wrong is said in one line with file and key.
"""

import csv
import dataclasses
import functools
import io
import json
import os
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Int

from jdissect import paths, replacing, results, stored_layer
from jdissect.errors import UserError
from jdissect.grouped import BLOCKS
from jdissect.store import FORMAT_VERSION, MARK


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run.

    Attributes:
      folder: its directory.
      config: as it was run; {} where config.json is missing.
      identity: {part: what can change the numbers}, see `store.identity`.
      layers: names of the probed layers.
      images: how many were counted.
      names: of all images, by index.
      blocks: int64[image] in [0, 32), by index.
      skipped: indices of the images that could not be read.
      seconds: {stage: s}.
      top1_error: of the network, percent; None: not known.
      by_itself: whether it is a result that `Result.save` wrote outside of a run; its
        images' names are not known.
    """

    folder: paths.Path
    config: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[str, ...]
    images: int
    names: tuple[str, ...]
    blocks: Int[np.ndarray, "image"]
    skipped: frozenset[int]
    seconds: dict[str, float]
    top1_error: float | None = None
    by_itself: bool = False

    @property
    def path(self) -> paths.Path:
        """What was opened: the run directory, or the result's folder."""
        return self.folder / self.layers[0] if self.by_itself else self.folder

    @property
    def name(self) -> str:
        """The directory's."""
        beside = self.path.name.startswith(replacing.PREFIX)
        return paths.as_text((self.path.parent if beside else self.path).name)

    def settings(self) -> ml_collections.ConfigDict:
        """The config as entry points take it."""
        return ml_collections.ConfigDict(self.config)

    @functools.cache  # noqa: B019
    def result(self, layer: str) -> results.Result:
        """What was found in a layer.

        Raises:
          UserError: there is no such layer, or its files are not what they should be.
        """
        if layer not in self.layers:
            raise UserError(
                f"{self.folder} has no layer '{layer}'; it has {', '.join(self.layers)}"
            )
        return stored_layer.load(self.folder / layer)


def open_run(folder: str | os.PathLike) -> StoredRun:
    """Reads a finished run directory, or a result that a program saved by itself.

    Raises:
      UserError: it is none, unfinished, of a newer version, or damaged.
    """
    folder = replacing.current(paths.from_user(folder), MARK)
    path = folder / MARK
    summary = _json(path, f"{folder} holds no run")
    if "format_version" not in summary and "units" in summary:
        if (folder.parent / "summary.json").is_file():
            raise UserError(
                f"{folder} is a layer of a run; give the run, {folder.parent}"
            )
        return _saved_result(folder)
    version = _field(summary, "format_version", int, path)
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version is {version}, newer than this program's "
            f"{FORMAT_VERSION}; update jdissect"
        )
    status = _field(summary, "status", str, path)
    if status != "finished":
        raise UserError(
            f"{folder} is unfinished (status: {status}); the command that began it "
            "goes on with it"
        )
    layers = _field(summary, "layers", list, path)
    if not layers or not all(isinstance(name, str) and _plain(name) for name in layers):
        raise UserError(f"{path}: layers is {layers!r:.60}, no list of layers")
    config = folder / "config.json"
    names, blocks, skipped = _images(folder / "images.csv")
    return StoredRun(
        folder=folder,
        config=_json(config, f"{folder} is damaged"),
        identity=_field(summary, "identity", dict, path),
        layers=tuple(layers),
        images=_field(summary, "images", int, path),
        names=names,
        blocks=blocks,
        skipped=skipped,
        seconds=_field(summary, "seconds", dict, path),
        top1_error=(
            _field(summary, "top1_error", float, path)
            if "top1_error" in summary
            else None
        ),
    )


def _saved_result(folder: paths.Path) -> StoredRun:
    """A result that a program saved by itself, as a run that knows nothing more."""
    result = stored_layer.load(folder)
    return StoredRun(
        folder=folder.parent,
        config={},
        identity={"quantile": result.quantile},
        layers=(folder.name,),
        images=result.images,
        names=(),
        blocks=np.zeros(0, np.int64),
        skipped=frozenset(),
        seconds={},
        by_itself=True,
    )


def _plain(layer: str) -> bool:
    """Whether a layer's name leads nowhere else."""
    return bool(layer) and not set(layer) & {"/", "\\"} and layer not in (".", "..")


def _json(path: paths.Path, trouble: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{trouble}: no {path.name} in it")
    try:
        content = json.loads(paths.read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


def _field(content: dict, key: str, kind: type, path: paths.Path) -> Any:
    if key not in content:
        raise UserError(f"{path} lacks '{key}'")
    value = content[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} is {value!r:.60}, no {kind.__name__}")
    return value


def _images(path: paths.Path):
    """(names, blocks, skipped indices) of images.csv."""
    if not path.is_file():
        raise UserError(f"{path.parent} is damaged: no {path.name} in it")
    # Names may be anything a file system takes, line ends too.
    names, blocks, skipped = [], [], set()
    try:
        text = paths.read_bytes(path).decode("utf-8")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        for number, row in enumerate(rows):
            if int(row["index"]) != number or not 0 <= int(row["block"]) < BLOCKS:
                raise ValueError
            names.append(row["name"])
            blocks.append(int(row["block"]))
            if int(row["skipped"]):
                skipped.add(number)
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError(
            f"{path}: line {len(names) + 2} is no index,name,block,skipped"
        ) from None
    return tuple(names), np.array(blocks, np.int64), frozenset(skipped)
