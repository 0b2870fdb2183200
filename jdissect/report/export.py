"""Exports a run's layers in the formats of other programs."""

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

FORMATS = ("descriptions", "report", "parquet")


_SIDE = 224  # side of exported images in pixels


def write(
    run: Any,
    results: dict[str, Any],
    folder: Any,
    *,
    formats: Sequence[str] = FORMATS,
    cutoff: float = 0.01,
    images: bool = True,
    data_path: str = "",
) -> list[str]:
    """Writes a run's layers; returns the files' paths.

    Args:
      run: `finished_run.StoredRun`.
      results: {layer: `layer_result.Result`}.
      folder: existing folder to write to.
      formats: a selection of `descriptions`, `report` and `parquet`.
      cutoff: IoU above which pairs go into the Parquet table.
      images: whether to write pictures beside `report.json`.
      data_path: folder of the images, in place of the run's config.

    Raises:
      OSError: a file cannot be written; no partial file is left.
    """
    from jdissect.base import paths
    from jdissect.base.atomic_files import utf8, write_whole

    content: dict[str, bytes] = {}
    shown: dict[str, bytes] = {}
    if "descriptions" in formats:
        content["descriptions.csv"] = utf8(descriptions(results))
    if "parquet" in formats:
        content["units.parquet"] = parquet(run.name, results, cutoff)
    if "report" in formats:
        pictures = _Pictures(run, data_path) if images else None
        for layer, result in results.items():
            name = "report.json" if len(results) == 1 else f"report-{layer}.json"
            report = netdissect_report(result, run.name, pictures and pictures.of)
            text = json.dumps(report, indent=1, ensure_ascii=False)
            content[name] = utf8(text)
        if pictures:
            pictures.tell()
            shown = pictures.files
    # Everything is made before anything is replaced.
    if shown:
        paths.make_folder(folder / "images")
    for name, data in [*shown.items(), *content.items()]:
        write_whole(folder / name, data)
    return [str(folder / name) for name in content]


def descriptions(results: dict[str, Any]) -> str:
    """Returns CLIP-Dissect's `descriptions.csv`: one line per unit with a concept.

    Names that a spreadsheet would run as a formula start with an apostrophe.
    """
    from jdissect.base.csv_cells import csv_text
    from jdissect.results.layer_result import exact

    rows: list[tuple] = [("layer", "unit", "description", "similarity")]
    for layer, result in results.items():
        for unit, column in enumerate(result.best_concept):
            if column >= 0:
                iou = exact(result.best_iou[unit])
                name = str(result.unit_names[unit])
                rows.append((layer, name, result.concepts[column], iou))
    return csv_text(rows)


def netdissect_report(result: Any, name: str, picture=None) -> dict[str, Any]:
    """Returns netdissect's `report.json` of a layer.

    Args:
      result: result of the layer.
      name: name of the network, for the header.
      picture: maps an image number to its file name, or None if there is no file.
    """
    units, names = [], result.unit_names.tolist()
    for unit in (-result.best_iou).argsort(kind="stable"):
        column = result.best_concept[unit]
        if column < 0:
            continue
        record = {
            "unit": names[unit],
            "iou": float(result.best_iou[unit]),
            "label": result.concepts[column],
            "cat": result.categories[column],
        }
        shown = picture and picture(int(result.top_image[unit, 0]))
        units.append({**record, **({"image": shown} if shown else {})})
    header: dict[str, Any] = {"name": f"{name} {result.layer}"}
    if units and "image" in units[0]:
        header["image"] = units[0]["image"]
    return {"header": header, "units": units}


def parquet(run: str, results: dict[str, Any], cutoff: float) -> bytes:
    """Returns all pairs of unit and concept with an IoU above `cutoff`, as Parquet.

    Columns: run, layer, unit, concept, category, iou, intersection and union (pixels),
    threshold (T_k, in the activation's own sign), is_best (whether it is the unit's
    concept). A unit is a number, or text such as `12-` if lower tails count.
    """
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    def names(values, numbers):
        return pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(np.asarray(numbers, np.int32)), pyarrow.array(list(values))
        )

    tables = []
    for layer, result in results.items():
        iou = result.intersection / np.maximum(result.union, 1)
        unit, column = np.nonzero(iou > cutoff)
        categories = list(dict.fromkeys(result.categories)) or [""]
        place = np.array([categories.index(c) for c in result.categories], np.int32)
        # A name with two categories has one entry in the dictionary of names.
        concepts = list(dict.fromkeys(result.concepts)) or [""]
        number = {name: n for n, name in enumerate(concepts)}
        of_name = np.array([number[name] for name in result.concepts], np.int32)
        columns = {
            "run": names([run], np.zeros(len(unit))),
            "layer": names([layer], np.zeros(len(unit))),
            "unit": (
                unit.astype(np.int32)
                if result.tail == "upper"
                else names(result.unit_names.tolist(), unit)
            ),
            "concept": names(concepts, of_name[column]),
            "category": names(categories, place[column]),
            "iou": iou[unit, column],  # float64, as in comparisons
            "intersection": result.intersection[unit, column],
            "union": result.union[unit, column],
            "threshold": result.shown_thresholds[unit],
            "is_best": result.best_concept[unit] == column,
        }
        tables.append(pyarrow.table(columns))
    table = pyarrow.concat_tables(tables).unify_dictionaries()
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


class _Pictures:
    """Small JPEGs of images, made on first use.

    Attributes:
      files: {name relative to report.json: content}.
    """

    def __init__(self, run, data_path):
        from jdissect.base.errors import UserError
        from jdissect.report.probe_images import open_counted

        self._made, self.files, self._images = {}, {}, None
        try:
            self._images = open_counted(run, data_path=data_path)
        except UserError as error:
            reason = " ".join(str(error).split())
            print(f"{run.path}: report.json without images: {reason}", file=sys.stderr)

    def of(self, index: int) -> str | None:
        """Returns the file name relative to report.json; None without an image."""
        if self._images is None:
            return None
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def tell(self) -> None:
        """Prints one line if requested images no longer exist."""
        if self._images is not None:
            self._images.tell()

    def _make(self, index):
        from PIL import Image

        from jdissect.report.probe_images import read_pixels

        assert self._images is not None  # else there are no pictures
        if (pixels := read_pixels(self._images, index)) is None:
            return None
        picture = Image.fromarray(pixels)
        picture.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        name = f"images/{index:07d}.jpg"
        self.files[name] = file.getvalue()
        return name
