"""Writes and reads what chance gives for a layer: chance.npz, chance.csv, chance.json.

`chance.npz` has everything, by unit: p_exact, p, q, the concepts of its set (set_start,
set_column), and the best IoU and its concept under every permutation (null_iou,
null_concept). `chance.csv` shows one row per unit. `chance.json` has the seed, the
counts by chance at the run's IoU thresholds, and the result hash of the run; it is
written last, so that a folder with it is complete.
"""

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from jdissect.analysis.concept_sets import ConceptSets
from jdissect.base import paths, safe_reading
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.base.errors import UserError
from jdissect.chance_level.layer import Chance, summary
from jdissect.chance_level.p_values import PValues
from jdissect.chance_level.permutation import Best
from jdissect.results.layer_result import Result, exact
from jdissect.results.run_directory import MARK

ARRAYS, TABLE, ABOUT = "chance.npz", "chance.csv", "chance.json"
FORMAT_VERSION = 1
BETWEEN = "; "  # concepts of a set in chance.csv
# For each array, the kind of its numbers and its shape: p permutations, u units, e
# entries of sets.
_LAYOUT = {
    "null_iou": ("f", "pu"),
    "null_concept": ("i", "pu"),
    "p_exact": ("f", "u"),
    "p": ("f", "u"),
    "q": ("f", "u"),
    "set_start": ("i", "s"),
    "set_column": ("i", "e"),
}


def write(folder: str | os.PathLike, chance: Chance, result: Result) -> None:
    """Writes the files into a layer's folder of a run.

    Raises:
      OSError: a file cannot be written.
    """
    folder = paths.from_user(folder)
    (folder / ABOUT).unlink(missing_ok=True)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        null_iou=chance.null.iou,
        null_concept=chance.null.concept.astype(np.int32),
        p_exact=chance.values.exact,
        p=chance.values.pooled,
        q=chance.values.q,
        set_start=chance.sets.start.astype(np.int64),
        set_column=chance.sets.column.astype(np.int32),
    )
    write_whole(folder / ARRAYS, content.getvalue())
    write_whole(folder / TABLE, utf8(csv_text(_rows(chance, result))))
    about = {
        "format_version": FORMAT_VERSION,
        "result_hash": _result_hash(folder),
        "permutations": chance.permutations,
        "seed": chance.seed,
        "iou_of_5_percent_by_chance": chance.level(),
        "iou_thresholds": summary(chance, result),
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / ABOUT, utf8(text))


def _rows(chance: Chance, result: Result) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of chance.csv."""
    yield (
        *("unit", "concept", "category", "iou", "chance_median", "chance_95"),
        *("p_exact", "p", "q", "set"),
    )
    median = np.median(chance.null.iou, axis=0)
    high = np.quantile(chance.null.iou, 0.95, axis=0, method="inverted_cdf")
    for unit, column in enumerate(result.best_concept):
        named = column >= 0
        yield (
            str(result.unit_names[unit]),
            result.concepts[column] if named else "",
            result.categories[column] if named else "",
            exact(result.best_iou[unit]),
            *(f"{values[unit]:.6f}" for values in (median, high)),
            *(f"{values[unit]:.6g}" for values in chance.values),
            BETWEEN.join(result.concepts[entry] for entry in chance.sets.of(unit)),
        )


def read(folder: str | os.PathLike) -> Chance | None:
    """Reads the files of a layer's folder of a run.

    Returns:
      None if there are none, or they are of another run.

    Raises:
      UserError: a file is damaged, or does not fit the layer.
    """
    folder = paths.from_user(folder)
    path = folder / ABOUT
    if not path.is_file():
        return None
    about = safe_reading.read_json(path)
    version, seed = about.get("format_version"), about.get("seed")
    if type(version) is not int or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version is {version!r:.40}, not {FORMAT_VERSION}; run "
            "python -m jdissect.chance again"
        )
    if about.get("result_hash") != _result_hash(folder):
        return None
    if type(seed) is not int or seed < 0:
        raise UserError(f"{path}: seed is {seed!r:.40}, not a whole number")
    with safe_reading.Arrays(
        folder / "dissection.npz", ["thresholds", "concepts"]
    ) as stored:
        shapes = [stored.headers[name].shape for name in ("thresholds", "concepts")]
    if not all(len(shape) == 1 for shape in shapes):
        raise UserError(f"{folder / 'dissection.npz'} is damaged")
    (units,), (concepts,) = shapes
    return _checked(folder / ARRAYS, seed, units, concepts)


def _checked(path: paths.Path, seed: int, units: int, concepts: int) -> Chance:
    with safe_reading.Arrays(path, _LAYOUT) as arrays:
        lengths = {"u": units, "s": units + 1}
        for name, (kind, letters) in _LAYOUT.items():
            header = arrays.headers[name]
            fits = header.dtype.kind == kind and len(header.shape) == len(letters)
            if not fits or any(
                lengths.setdefault(letter, length) != length
                for letter, length in zip(letters, header.shape, strict=True)
            ):
                raise UserError(
                    f"{path}: '{name}' is {header.dtype} of shape {header.shape}, "
                    f"which does not fit {units} units"
                )
        found = {name: arrays.read(name) for name in _LAYOUT}
    for name in _LAYOUT:
        low, high = {
            "null_concept": (-1, concepts - 1),
            "set_start": (0, len(found["set_column"])),
            "set_column": (0, concepts - 1),
        }.get(name, (0, 1))
        # A comparison with what is not a number is False.
        if not ((found[name] >= low) & (found[name] <= high)).all():
            raise UserError(f"{path}: '{name}' has a value outside {low} .. {high}")
    start = found["set_start"]
    if (
        start[0] != 0
        or start[-1] != len(found["set_column"])
        or (np.diff(start) < 0).any()
    ):
        raise UserError(f"{path}: 'set_start' does not divide the sets")
    return Chance(
        seed,
        Best(found["null_iou"].astype(np.float64), found["null_concept"]),
        PValues(*(found[n].astype(np.float64) for n in ("p_exact", "p", "q"))),
        ConceptSets(start.astype(np.int64), found["set_column"].astype(np.int64)),
    )


def _result_hash(folder: paths.Path) -> str:
    """Returns the result hash of the run that a layer's folder is in."""
    path = folder.parent / MARK
    text = safe_reading.read_json(path).get("result_hash") if path.is_file() else None
    if not isinstance(text, str):
        raise UserError(f"{path} lacks 'result_hash'")
    return text
