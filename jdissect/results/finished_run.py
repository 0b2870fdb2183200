"""Reads finished run directories, for the commands that follow a dissection.

Their format is defined in `run_directory` and `layer_result`. A run directory may come
from someone else or from another version, so everything is checked before use, and
errors are one line with file and key.
"""

import csv
import dataclasses
import functools
import math
import os
import re
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Int

from jdissect.base import csv_cells, paths, replacing, safe_reading
from jdissect.base.errors import UserError
from jdissect.checkpoints.networks import top1_error
from jdissect.results import layer_result, load_layer
from jdissect.results.group_counts import BLOCKS
from jdissect.results.run_directory import FORMAT_VERSION, MARK

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run.

    Attributes:
      folder: the run directory.
      config: config of the run; {} if config.json is missing.
      identity: {part: what can change the numbers}, see `base.identity`.
      layers: names of the probed layers.
      images: number of images counted.
      names: names of all images, by index.
      blocks: int64[image] in [0, 32), by index.
      skipped: indices of the unreadable images.
      seconds: {stage: duration in s}.
      hashes: sha256 of each image's content, by index, see `Source.content_hashes`; ()
        for runs of older versions.
      top1_error: top-1 error of the network in percent; None: not known.
      by_itself: whether `Result.save` wrote it outside a run; then image names are
        not known.
    """

    folder: paths.Path
    config: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[str, ...]
    images: int
    names: tuple[str, ...]
    blocks: Int[np.ndarray, " image"]
    skipped: frozenset[int]
    seconds: dict[str, float]
    hashes: tuple[str, ...] = ()
    top1_error: float | None = None
    by_itself: bool = False

    @property
    def path(self) -> paths.Path:
        """The folder that was opened: the run directory, or that of a saved result."""
        return self.folder / self.layers[0] if self.by_itself else self.folder

    @property
    def name(self) -> str:
        """Name of the directory."""
        beside = self.path.name.startswith(replacing.PREFIX)
        return paths.as_text((self.path.parent if beside else self.path).name)

    def settings(self) -> ml_collections.ConfigDict:
        """The config as the commands take it."""
        return ml_collections.ConfigDict(self.config)

    @functools.cache  # noqa: B019
    def result(self, layer: str) -> layer_result.Result:
        """Returns the result of a layer.

        Raises:
          UserError: the layer does not exist, or its files are invalid.
        """
        if layer not in self.layers:
            raise UserError(
                f"{self.folder} has no layer '{layer}'; it has {', '.join(self.layers)}"
            )
        result = load_layer.load(self.folder / layer)
        last, images = int(result.top_image.max(initial=-1)), len(self.names)
        if last >= images and not self.by_itself:
            raise UserError(
                f"{self.folder / layer / 'topk.npz'}: 'image' has {last}, but "
                f"images.csv lists {images} images"
            )
        return result


def open_run(folder: str | os.PathLike) -> StoredRun:
    """Reads a finished run directory, or a result saved with `Result.save`.

    Raises:
      UserError: the run is missing, unfinished, of a newer version, or damaged.
    """
    folder = replacing.current(paths.from_user(folder), MARK)
    path = folder / MARK
    if not path.is_file():
        raise UserError(f"{folder} does not hold a run: {load_layer.instead(folder)}")
    summary = safe_reading.read_json(path)
    if "format_version" not in summary and "units" in summary:
        if not paths.is_remote(folder):  # so that '.' has a name and a parent
            folder = folder.resolve()
        above = folder.parent / "summary.json"
        if above.is_file() and "format_version" in safe_reading.read_json(above):
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
            f"{folder} is unfinished (status: {status}); run its command "
            "again to resume it"
        )
    layers = _field(summary, "layers", list, path)
    if not layers or not all(isinstance(name, str) and _plain(name) for name in layers):
        raise UserError(f"{path}: layers is {layers!r:.60}, not a list of layers")
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder} is damaged: {config.name} is missing")
    names, blocks, skipped, hashes = _images(folder / "images.csv")
    return StoredRun(
        folder=folder,
        config=safe_reading.read_json(config),
        identity=_field(summary, "identity", dict, path),
        layers=tuple(layers),
        images=_count(summary, "images", path),
        names=names,
        blocks=blocks,
        skipped=skipped,
        seconds=_field(summary, "seconds", dict, path),
        hashes=hashes,
        top1_error=_error(summary, path),
    )


def _saved_result(folder: paths.Path) -> StoredRun:
    """Returns a saved result as a run without further information."""
    result = load_layer.load(folder)
    return StoredRun(
        folder=folder.parent,
        config={},
        identity={
            "quantile": result.quantile,
            **({"tail": result.tail} if result.tail != "upper" else {}),
        },
        layers=(folder.name,),
        images=result.images,
        names=(),
        blocks=np.zeros(0, np.int64),
        skipped=frozenset(),
        seconds={},
        by_itself=True,
    )


def _plain(layer: str) -> bool:
    """Returns whether a layer name stays inside the folder."""
    return bool(layer) and not set(layer) & {"/", "\\"} and layer not in (".", "..")


def _field(content: dict, key: str, kind: type, path: paths.Path) -> Any:
    if key not in content:
        raise UserError(f"{path} lacks '{key}'")
    value = content[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} is {value!r:.60}, not of type {kind.__name__}")
    return value


def _count(content: dict, key: str, path: paths.Path) -> int:
    value = _field(content, key, int, path)
    if value < 0:
        raise UserError(f"{path}: {key} is {value}, less than 0")
    return value


def _error(summary: dict, path: paths.Path) -> float | None:
    if "top1_error" not in summary:
        return None
    value = _field(summary, "top1_error", float, path)
    if not 0 <= value <= 100 or not math.isfinite(value):
        raise UserError(f"{path}: top1_error is {value}, not a percentage")
    return value


def _images(path: paths.Path):
    """Returns (names, blocks, skipped indices, hashes) from images.csv."""
    if not path.is_file():
        raise UserError(f"{path.parent} is damaged: {path.name} is missing")
    names, blocks, skipped, hashes = [], [], set(), []
    columns, line = "index,name,block,skipped", 2
    try:
        text = paths.read_bytes(path).decode("utf-8")
        rows = csv_cells.csv_rows(text)
        # Older files without hashes have the names unescaped.
        hashed = "sha256" in (rows.fieldnames or ())
        columns += ",sha256" * hashed
        for number, row in enumerate(rows):
            line = number + 2
            if int(row["index"]) != number or not 0 <= int(row["block"]) < BLOCKS:
                raise ValueError
            names.append(csv_cells.true_text(row["name"]) if hashed else row["name"])
            blocks.append(int(row["block"]))
            if int(row["skipped"]):
                skipped.add(number)
            if hashed:
                if not _HASH.fullmatch(row["sha256"]):
                    raise ValueError
                hashes.append(row["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error):
        raise UserError(f"{path}: line {line} is not {columns}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return tuple(names), np.array(blocks, np.int64), frozenset(skipped), tuple(hashes)


def known_error(run: StoredRun) -> float | None:
    """Returns the top-1 error in percent of a run's network; None if not known."""
    if run.top1_error is not None:
        return run.top1_error
    if run.identity.get("model.baseline") == "untrained":
        return None  # the weights are those of the trained network
    try:
        weights = run.config["model"]["weights"]
        # The run may come from anyone, so it must not trigger access to a store.
        error = None if paths.is_elsewhere(weights) else top1_error(weights)
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return None  # the weights no longer exist
    if isinstance(error, int | float) and 0 <= error <= 100:
        return float(error)
    return None
