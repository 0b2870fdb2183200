"""What is known of the labels of a layer's units, and its files in a layer's folder.

`verified.json` holds everything, `verified.csv` the same as a table for people.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jdissect.base import paths, safe_reading
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.base.errors import UserError

TABLE, FILE, PICTURE = "verified.csv", "verified.json", "verified.png"
HELD_OUT, SKIPPED = "held out", "skipped"
WAYS = ("removed", "repainted", HELD_OUT, SKIPPED)
_FORMAT = 1
_MOST_ROWS = 2**24
_LONGEST = 1000  # characters of a text in the file


class Share(NamedTuple):
    """Verified units among the detectors of a layer at one IoU threshold.

    Attributes:
      detectors: units with an IoU above the threshold.
      judged: those of them whose concept could be changed, or was in enough images.
      verified: those of them that are verified.
    """

    detectors: int
    judged: int
    verified: int

    @property
    def share(self) -> float:
        """Verified among judged units; NaN without any."""
        return self.verified / self.judged if self.judged else math.nan


class Example(NamedTuple):
    """A pair of pictures.

    Attributes:
      row: row of the unit.
      best: whether the unit is among those of highest AUC, or of lowest.
      pixels: with and without the concept.
      fires: bool, where the unit's activation exceeds T_k, on the mask grid.
    """

    row: int
    best: bool
    pixels: UInt8[np.ndarray, "2 side side 3"]
    fires: Bool[np.ndarray, "2 height width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Verified:
    """Labelled units of a layer, one row each, in the order of the units.

    Numbers that are not known are NaN.

    Attributes:
      result_hash: hash of the run, root `summary.json`.
      layer: name of the layer.
      iou_thresholds: thresholds of the shares.
      unit: int64[row], number of the unit.
      name: its name, see `Result.unit_names`.
      concept, category: its label.
      iou: IoU that the label has in the run.
      way: how it was checked, one of `WAYS`.
      images: number of pairs, or of images with the concept.
      auc, auc_low, auc_high: AUC with 95 % interval, see `separation`.
      shift, shift_low, shift_high: mean difference of pairs in standard deviations.
      controls: number of pairs, or images, of the control.
      control: AUC of the control.
      margin, margin_low, margin_high: AUC minus that of the control.
      maximum: AUC of the image's maximum instead of the thing's mean.
      note: why it was skipped, and the like.
      examples: pairs of some units; not in the files.
    """

    result_hash: str
    layer: str
    iou_thresholds: tuple[float, ...]
    unit: Int[np.ndarray, " row"]
    name: tuple[str, ...]
    concept: tuple[str, ...]
    category: tuple[str, ...]
    iou: Float[np.ndarray, " row"]
    way: tuple[str, ...]
    images: Int[np.ndarray, " row"]
    auc: Float[np.ndarray, " row"]
    auc_low: Float[np.ndarray, " row"]
    auc_high: Float[np.ndarray, " row"]
    shift: Float[np.ndarray, " row"]
    shift_low: Float[np.ndarray, " row"]
    shift_high: Float[np.ndarray, " row"]
    controls: Int[np.ndarray, " row"]
    control: Float[np.ndarray, " row"]
    margin: Float[np.ndarray, " row"]
    margin_low: Float[np.ndarray, " row"]
    margin_high: Float[np.ndarray, " row"]
    maximum: Float[np.ndarray, " row"]
    note: tuple[str, ...]
    examples: tuple[Example, ...] = ()

    @property
    def judged(self) -> Bool[np.ndarray, " row"]:
        """Whether a row has an AUC and a control."""
        return np.isfinite(self.auc_low) & np.isfinite(self.margin_low)

    @property
    def verified(self) -> Bool[np.ndarray, " row"]:
        """Whether the AUC's interval is above 0.5 and above the control's AUC."""
        return self.judged & (self.auc_low > 0.5) & (self.margin_low > 0)

    def share(self, threshold: float) -> Share:
        """Counts the units with an IoU above a threshold.

        Args:
          threshold: at least the lowest of `iou_thresholds`, if only detectors have
            rows.
        """
        there = self.iou > threshold
        counts = (there, there & self.judged, there & self.verified)
        return Share(*(int(each.sum()) for each in counts))

    def write(self, folder: paths.Path) -> None:
        """Writes verified.csv and verified.json into a layer's folder.

        Raises:
          OSError: a file cannot be written; no partial file is left.
        """
        write_whole(folder / TABLE, utf8(csv_text(self._table())))
        columns: dict[str, list[Any]] = {}
        for name in _COLUMNS:
            values = getattr(self, name)
            if isinstance(values, np.ndarray):
                values = [
                    None if value != value else value for value in values.tolist()
                ]
            columns[name] = list(values)
        content = {
            "format_version": _FORMAT,
            "result_hash": self.result_hash,
            "layer": self.layer,
            "iou_thresholds": {
                str(threshold): self.share(threshold)._asdict()
                for threshold in self.iou_thresholds
            },
            "columns": columns,
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        write_whole(folder / FILE, utf8(text))

    def _table(self) -> Iterator[tuple]:
        names = [name for name in _COLUMNS if name not in ("unit", "name", "note")]
        yield ("unit", *names, "verified", "note")
        verified = self.verified
        for row in range(len(self.unit)):
            cells = [_cell(getattr(self, name)[row]) for name in names]
            yield (self.name[row], *cells, int(verified[row]), self.note[row])


_COLUMNS = tuple(
    field.name
    for field in dataclasses.fields(Verified)
    if field.name not in ("result_hash", "layer", "iou_thresholds", "examples")
)
_TEXTS = ("name", "concept", "category", "way", "note")
_COUNTS = ("unit", "images", "controls")


def _cell(value: Any) -> Any:
    if isinstance(value, str | np.integer):
        return value
    return None if value != value else float(f"{value:.6g}")


def read(folder: paths.Path) -> Verified | None:
    """Reads the verified.json of a layer's folder; None if there is none.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = safe_reading.read_json(path)
    if content.get("format_version") != _FORMAT:
        raise UserError(
            f"{path}: format_version is {content.get('format_version')!r:.60}, "
            f"not {_FORMAT}"
        )
    thresholds, columns = content.get("iou_thresholds"), content.get("columns")
    for name, value in (("iou_thresholds", thresholds), ("columns", columns)):
        if not isinstance(value, dict):
            raise UserError(f"{path}: {name} is {value!r:.60}, not an object")
    for name in ("result_hash", "layer"):
        if not isinstance(content.get(name), str):
            raise UserError(f"{path}: {name} is {content.get(name)!r:.60}, not a text")
    assert isinstance(thresholds, dict) and isinstance(columns, dict)
    found = {name: _column(columns, name, path) for name in _COLUMNS}
    if len({len(values) for values in found.values()}) > 1:
        raise UserError(f"{path}: columns have different lengths")
    if not set(found["way"]) <= set(WAYS):
        other = sorted(set(found["way"]) - set(WAYS))[0]
        raise UserError(f"{path}: 'way' has {other!r:.60}, not {', '.join(WAYS)}")
    try:
        numbers = tuple(float(text) for text in thresholds)
    except ValueError:
        numbers = (math.nan,)
    if not all(0 <= number < 1 for number in numbers):
        raise UserError(f"{path}: iou_thresholds are not numbers in [0, 1)")
    return Verified(
        result_hash=content["result_hash"],
        layer=content["layer"],
        iou_thresholds=numbers,
        **found,
    )


def _column(columns: dict, name: str, path: paths.Path) -> Any:
    values = columns.get(name)
    if not isinstance(values, list) or len(values) > _MOST_ROWS:
        raise UserError(f"{path} lacks the column '{name}'")
    if name in _TEXTS:
        if all(type(v) is str and len(v) <= _LONGEST for v in values):
            return tuple(values)
        raise UserError(f"{path}: '{name}' does not hold texts")
    if name in _COUNTS:
        if all(type(value) is int and 0 <= value < 2**31 for value in values):
            return np.array(values, np.int64)
        raise UserError(f"{path}: '{name}' does not hold counts")
    if all(value is None or type(value) in (int, float) for value in values):
        with np.errstate(over="ignore"):
            return _numbers(values, name, path)
    raise UserError(f"{path}: '{name}' does not hold numbers")


def _numbers(values: list, name: str, path: paths.Path) -> Float[np.ndarray, " row"]:
    try:
        found = np.array([math.nan if v is None else v for v in values], np.float64)
    except OverflowError:
        found = np.array([math.inf])
    if np.isinf(found).any():
        raise UserError(f"{path}: '{name}' holds numbers that are not finite")
    return found
