"""Scores of a layer that need activations, and their file `scores.npz`.

The file carries the hash of its run's result. `read` does not show scores of another
result, as after a run was made again.
"""

import dataclasses
import functools
import io
import math
import os

import numpy as np
from jaxtyping import Float, Int

from jdissect.base import paths, safe_reading
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError

FILE = "scores.npz"
NAMES = ("pearson", "cosine", "auroc", "average_precision", "best_iou")
_SUMMARY = "summary.json"
_HASH_LENGTH = 64
_MOST = 2**24  # units or concepts
# {array: (kinds of numbers, shape)}; equal letters are equal lengths.
_LAYOUT = {
    "pearson": ("f", "uc"),
    "cosine": ("f", "uc"),
    "error": ("f", ""),
    "unit": ("iu", "p"),
    "column": ("iu", "p"),
    "auroc": ("f", "p2"),
    "average_precision": ("f", "p2"),
    "best_iou": ("f", "p2"),
    "best_threshold": ("f", "p"),
    "result_hash": ("U", ""),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Scores of activations; formulas in `moments` and `ranking`.

    A unit that fires in the lower tail is scored as its negated activation.

    Attributes:
      pearson, cosine: float32[unit, concept], in [-1, 1].
      error: bound on what fixed point changed in any Pearson or cosine.
      unit, column: int32[pair], the pairs that are ranked: each unit with its concept
        and those next in IoU.
      auroc, average_precision, best_iou: float64[pair, 2], certain bounds (low, high).
      best_threshold: float32[pair]: above it, IoU is `best_iou`'s lower bound.
      result_hash: hash of the run's result.
    """

    pearson: Float[np.ndarray, "unit concept"]
    cosine: Float[np.ndarray, "unit concept"]
    error: float
    unit: Int[np.ndarray, " pair"]
    column: Int[np.ndarray, " pair"]
    auroc: Float[np.ndarray, "pair 2"]
    average_precision: Float[np.ndarray, "pair 2"]
    best_iou: Float[np.ndarray, "pair 2"]
    best_threshold: Float[np.ndarray, " pair"]
    result_hash: str = ""

    @property
    def width(self) -> float:
        """The largest distance of two bounds."""
        bounds = (self.auroc, self.average_precision, self.best_iou)
        return max(float(np.ptp(each, axis=1).max(initial=0)) for each in bounds)

    def of_pair(self, unit: int, column: int) -> dict[str, float]:
        """Returns {score: value} of a pair, those in NAMES that it has.

        AUROC and AP are the middle of their bounds; best IoU is the one reached.
        """
        found = {
            "pearson": float(self.pearson[unit, column]),
            "cosine": float(self.cosine[unit, column]),
        }
        if (pair := self._place.get((unit, column))) is not None:
            found["auroc"] = float(self.auroc[pair].mean())
            found["average_precision"] = float(self.average_precision[pair].mean())
            found["best_iou"] = float(self.best_iou[pair, 0])
        return found

    @functools.cached_property
    def _place(self) -> dict[tuple[int, int], int]:
        """{(unit, column): its pair}."""
        both = zip(self.unit.tolist(), self.column.tolist(), strict=True)
        return {pair: at for at, pair in enumerate(both)}


def write(folder: str | os.PathLike, measured: Measured) -> None:
    """Writes `scores.npz` into a layer's folder.

    Raises:
      OSError: the file cannot be written; no partial file is left.
    """
    fields = (field.name for field in dataclasses.fields(measured))
    file = io.BytesIO()
    np.savez_compressed(
        file,
        **{name: np.asarray(getattr(measured, name)) for name in fields},  # type: ignore[arg-type]
    )
    write_whole(paths.from_user(folder) / FILE, file.getvalue())


def read(folder: str | os.PathLike) -> Measured | None:
    """Reads the scores in a layer's folder of a run; None if there are none of its.

    Raises:
      UserError: the file cannot be read, or holds something else.
    """
    folder = paths.from_user(folder)
    path = folder / FILE
    above, own = folder.parent / _SUMMARY, folder / _SUMMARY
    if not (path.is_file() and above.is_file() and own.is_file()):
        return None
    wanted = safe_reading.read_json(above).get("result_hash")
    units = safe_reading.read_json(own).get("units")
    with safe_reading.Arrays(path, _LAYOUT) as arrays:
        headers = arrays.headers
        hashed = headers["result_hash"].dtype
        if headers["result_hash"].shape or hashed.itemsize > 4 * _HASH_LENGTH:
            raise UserError(f"{path}: 'result_hash' is not one hash")
        if hashed.kind != "U" or str(arrays.read("result_hash")) != wanted:
            return None
        lengths: dict[str, object] = {"u": units, "2": 2}
        for name, (kinds, letters) in _LAYOUT.items():
            shape, kind = headers[name].shape, headers[name].dtype.kind
            if kind not in kinds:
                raise UserError(f"{path}: '{name}' holds {headers[name].dtype}")
            fits = len(shape) == len(letters) and all(
                lengths.setdefault(letter, length) == length and length <= _MOST
                for letter, length in zip(letters, shape, strict=True)
            )
            if not fits:
                raise UserError(f"{path}: '{name}' has shape {tuple(shape)}")
        found = {name: arrays.read(name) for name in _LAYOUT}
    _check_values(path, found)
    return Measured(
        **{
            name: array.astype(_types(name), copy=False)
            for name, array in found.items()
            if name not in ("error", "result_hash")
        },
        error=float(found["error"]),
        result_hash=str(found["result_hash"]),
    )


def _types(name: str) -> type:
    if name in ("unit", "column"):
        return np.int32
    if name in ("pearson", "cosine", "best_threshold"):
        return np.float32
    return np.float64


def _check_values(path: paths.Path, found: dict[str, np.ndarray]) -> None:
    """Checks that scores are in their range, and pairs exist."""
    for name, (kinds, _) in _LAYOUT.items():
        if kinds == "f" and not np.isfinite(found[name]).all():
            raise UserError(f"{path}: '{name}' has a number that is not finite")
    units, concepts = found["pearson"].shape
    for name, most in (("unit", units), ("column", concepts)):
        low, high = (int(f(initial=0)) for f in (found[name].min, found[name].max))
        if low < 0 or high >= max(most, 1):
            raise UserError(f"{path}: '{name}' has {low if low < 0 else high}")
    for name in NAMES:
        least = -1 if name in ("pearson", "cosine") else 0
        if not ((found[name] >= least) & (found[name] <= 1 + 1e-6)).all():
            raise UserError(f"{path}: '{name}' has a number outside [{least}, 1]")
    if not math.isfinite(float(found["error"])) or found["error"] < 0:
        raise UserError(f"{path}: 'error' is {float(found['error'])}")
