"""The formulas of a layer, and their files beside its result.

formulas.csv   unit,formula,length,iou,low,high,cross_fitted,concept,concept_iou,
               beam_iou,visited
formulas.json  {"result_hash", "settings", "units", "atoms", "mean_iou",
                "mean_cross_fitted"}

They belong to the run whose result hash they carry; another run's are not shown. The
files may come from anywhere, so types and numbers are checked.
"""

import csv
import dataclasses
import json
import math
import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jdissect.base import csv_cells, paths, safe_reading
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.errors import UserError
from jdissect.results.layer_result import FORMULAS, FORMULAS_TABLE, SUMMARY, exact

_COLUMNS = (
    *("unit", "formula", "length", "iou", "low", "high", "cross_fitted"),
    *("concept", "concept_iou", "beam_iou", "visited"),
)
_MOST_BYTES = 2**28  # of formulas.csv
_MOST_VISITED = 2**62
_LENGTHS = 64  # limit for a length in a file


@dataclasses.dataclass(frozen=True)
class Settings:
    """How formulas are searched.

    Attributes:
      length: most concepts in a formula.
      method: 'beam', or 'optimum' for the best of all formulas.
      beam: number of formulas in the beam.
      penalty: factor on the IoU for each concept after the first, in (0, 1].
      operators: of 'or', 'and', 'and_not'.
    """

    length: int = 3
    method: str = "beam"
    beam: int = 5
    penalty: float = 1.0
    operators: tuple[str, ...] = ("or", "and", "and_not")


@dataclasses.dataclass(frozen=True, eq=False)
class Formulas:
    """The best formula of every unit of a layer.

    Attributes:
      settings: how they were searched.
      unit_names: names of the units.
      formulas: each unit's formula, such as "water AND NOT blue"; '' for none.
      lengths: int32[unit], number of its concepts.
      iou: float64[unit], its IoU.
      low, high: float64[unit], 95 % interval of the IoU; NaN with too few blocks.
      cross_fitted: float64[unit], IoU of formulas chosen on half of the blocks and
        judged on the other half; NaN likewise.
      concepts: each unit's best single concept; '' for none.
      concept_iou: float64[unit], its IoU.
      beam_iou: float64[unit], IoU of the formula that the beam search finds.
      visited: int64[unit], number of formulas whose IoU was computed.
      mean_iou, mean_cross_fitted: means over units, of formulas of up to 1, 2, ...
        concepts.
      atoms: number of different sets of concepts at pixels.
      result_hash: result hash of the run.
    """

    settings: Settings
    unit_names: tuple[str, ...]
    formulas: tuple[str, ...]
    lengths: Int[np.ndarray, " unit"]
    iou: Float[np.ndarray, " unit"]
    low: Float[np.ndarray, " unit"]
    high: Float[np.ndarray, " unit"]
    cross_fitted: Float[np.ndarray, " unit"]
    concepts: tuple[str, ...]
    concept_iou: Float[np.ndarray, " unit"]
    beam_iou: Float[np.ndarray, " unit"]
    visited: Int[np.ndarray, " unit"]
    mean_iou: tuple[float, ...]
    mean_cross_fitted: tuple[float, ...]
    atoms: int = 0
    result_hash: str = ""

    def unique(self, threshold: float) -> list[str]:
        """Returns the distinct formulas of units with an IoU above a threshold."""
        units = np.flatnonzero(self.iou > threshold)
        return sorted({self.formulas[unit] for unit in units} - {""})


class Changed(NamedTuple):
    """Formulas that one of two runs has and the other has not.

    Attributes:
      gained: those of the second run only.
      lost: those of the first run only.
    """

    gained: tuple[str, ...]
    lost: tuple[str, ...]


def changed(first: Formulas, second: Formulas, threshold: float) -> Changed:
    """Compares the formulas of units with an IoU above `threshold` in two runs."""
    before, after = set(first.unique(threshold)), set(second.unique(threshold))
    return Changed(tuple(sorted(after - before)), tuple(sorted(before - after)))


def write(folder: str | os.PathLike, found: Formulas) -> None:
    """Writes formulas.csv and formulas.json into a layer's folder.

    Raises:
      OSError: a file cannot be written.
    """
    folder = paths.from_user(folder)
    # An interruption must not leave a table beside the settings of another.
    (folder / FORMULAS).unlink(missing_ok=True)
    write_whole(folder / FORMULAS_TABLE, utf8(csv_cells.csv_text(_rows(found))))
    content = {
        "result_hash": found.result_hash,
        "settings": dataclasses.asdict(found.settings),
        "units": len(found.unit_names),
        "atoms": found.atoms,
        "mean_iou": list(found.mean_iou),
        "mean_cross_fitted": [_number(value) for value in found.mean_cross_fitted],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_whole(folder / FORMULAS, utf8(text + "\n"))


def _rows(found: Formulas):
    yield _COLUMNS
    for unit, name in enumerate(found.unit_names):
        yield (
            name,
            found.formulas[unit],
            int(found.lengths[unit]),
            exact(found.iou[unit]),
            *(
                None if math.isnan(values[unit]) else exact(values[unit])
                for values in (found.low, found.high, found.cross_fitted)
            ),
            found.concepts[unit],
            exact(found.concept_iou[unit]),
            exact(found.beam_iou[unit]),
            int(found.visited[unit]),
        )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def read(folder: str | os.PathLike) -> Formulas | None:
    """Reads what `write` wrote into a layer's folder.

    Returns:
      None if there are no formulas, or those of another run.

    Raises:
      UserError: a file is damaged.
    """
    folder = paths.from_user(folder)
    path = folder / FORMULAS
    if not path.is_file():
        return None
    content = safe_reading.read_json(path)
    run = folder.parent / SUMMARY
    run_hash = safe_reading.read_json(run).get("result_hash") if run.is_file() else ""
    if not isinstance(run_hash, str) or content.get("result_hash") != run_hash:
        return None
    settings = _settings(content.get("settings"), path)
    means: dict[str, Any] = {
        key: _means(content.get(key), settings.length, path, key)
        for key in ("mean_iou", "mean_cross_fitted")
    }
    for key in ("units", "atoms"):
        value = content.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{path}: {key} is {value!r:.60}, not a count")
    columns = _table(folder / FORMULAS_TABLE, content["units"])
    return Formulas(
        settings=settings,
        atoms=content["atoms"],
        result_hash=run_hash,
        **means,
        **columns,
    )


def _settings(value: Any, path: paths.Path) -> Settings:
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    if not isinstance(value, dict) or set(value) != set(fields):
        raise UserError(f"{path}: settings are {value!r:.60}")
    known: dict[str, Any] = dict(value)
    if isinstance(known["operators"], list):
        known["operators"] = tuple(known["operators"])
    for name, field in fields.items():
        kind = type(field.default)
        if type(known[name]) is not kind:
            raise UserError(f"{path}: settings.{name} is {known[name]!r:.60}")
    operators = known["operators"]
    if not 1 <= known["length"] <= _LENGTHS or not set(map(str, operators)) <= set(
        Settings.operators
    ):
        raise UserError(f"{path}: settings are {value!r:.60}")
    return Settings(**known)


def _means(value: Any, count: int, path: paths.Path, key: str) -> tuple[float, ...]:
    if isinstance(value, list) and len(value) == count:
        means = [math.nan if mean is None else mean for mean in value]
        if all(type(m) is float and (math.isnan(m) or 0 <= m <= 1) for m in means):
            return tuple(means)
    raise UserError(f"{path}: {key} is {value!r:.60}, not {count} means of IoUs")


def _table(path: paths.Path, units: int) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent} is damaged: {path.name} is missing")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} has more than {_MOST_BYTES:,} bytes")
    read: dict[str, list] = {column: [] for column in _COLUMNS}
    line = 1
    try:
        rows = csv_cells.csv_rows(paths.read_bytes(path).decode("utf-8"))
        if tuple(rows.fieldnames or ()) != _COLUMNS:
            raise ValueError
        for number, row in enumerate(rows):
            line = number + 2
            for column, cell in row.items():
                read[column].append(_cell(column, cell))
        line += 1
        if len(read["unit"]) != units:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error):
        raise UserError(
            f"{path}: line {line} is not {','.join(_COLUMNS)} of {units} units"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return {
        "unit_names": tuple(read["unit"]),
        "formulas": tuple(read["formula"]),
        "lengths": np.array(read["length"], np.int32),
        "concepts": tuple(read["concept"]),
        "visited": np.array(read["visited"], np.int64),
        **{
            column: np.array(read[column], np.float64)
            for column in ("iou", "low", "high", "cross_fitted")
            + ("concept_iou", "beam_iou")
        },
    }


def _cell(column: str, cell: str) -> Any:
    if column in ("unit", "formula", "concept"):
        return csv_cells.true_text(cell)
    if column in ("length", "visited"):
        most = _LENGTHS if column == "length" else _MOST_VISITED
        if not cell.isascii() or not cell.isdecimal() or not int(cell) <= most:
            raise ValueError
        return int(cell)
    if not cell and column in ("low", "high", "cross_fitted"):
        return math.nan
    value = float(cell)
    if not 0 <= value <= 1:
        raise ValueError
    return value
