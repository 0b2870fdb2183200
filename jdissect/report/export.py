"""Exports a run's layers in the formats of other programs."""

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

FORMATS = ("descriptions", "report", "parquet", "scores")

_SIDE = 224  # side of exported images in pixels


def write(
    run: Any,
    results: dict[str, Any],
    findings: dict[str, Any],
    folder: Any,
    *,
    describe: str = "concept",
    formats: Sequence[str] = FORMATS,
    cutoff: float = 0.01,
    images: bool = True,
    data_path: str = "",
) -> list[str]:
    """Writes a run's layers; returns the files' paths.

    Args:
      run: `finished_run.StoredRun`.
      results: {layer: `layer_result.Result`}.
      findings: {layer: `findings.Findings`}.
      describe: `concept`, or `formula` for descriptions by formulas.
      folder: existing folder to write to.
      formats: a selection of FORMATS.
      cutoff: IoU above which pairs go into the Parquet table.
      images: whether to write pictures beside `report.json`.
      data_path: folder of the images, in place of the run's config.

    Raises:
      OSError: a file cannot be written; no partial file is left.
    """
    from jdissect.base import paths
    from jdissect.base.atomic_files import utf8, write_whole
    from jdissect.base.csv_cells import csv_text
    from jdissect.report import findings_table
    from jdissect.scoring import table as scores_table

    content: dict[str, bytes] = {}
    shown: dict[str, bytes] = {}
    if "descriptions" in formats:
        by_formula = findings if describe == "formula" else {}
        content["descriptions.csv"] = utf8(descriptions(results, by_formula))
    if "parquet" in formats:
        content["units.parquet"] = parquet(run.name, results, cutoff)
        if any(one.kinds for one in findings.values()):
            table = findings_table.by_unit(run.name, results, findings)
            content["findings.parquet"] = _written(table)
    if "scores" in formats:
        for layer, result in results.items():
            name = "scores.csv" if len(results) == 1 else f"scores-{layer}.csv"
            rows = scores_table.rows(result, findings[layer].measured)
            content[name] = utf8(csv_text([scores_table.HEADING, *rows]))
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


def check_formulas(run: Any, findings: dict[str, Any]) -> None:
    """Rejects layers without formulas.

    Raises:
      UserError: names the layers and the command that finds their formulas.
    """
    from jdissect.base.errors import UserError

    without = [layer for layer, found in findings.items() if found.formulas is None]
    if without:
        raise UserError(
            f"{run.path} has no formulas of {', '.join(without)}: "
            f"python -m jdissect.compose {run.path}"
        )


def descriptions(
    results: dict[str, Any], findings: dict[str, Any] | None = None
) -> str:
    """Returns CLIP-Dissect's `descriptions.csv`: one line per unit with a concept.

    Names that a spreadsheet would run as a formula start with an apostrophe.

    Args:
      results: {layer: result}.
      findings: {layer: `findings.Findings`} to describe units by their formulas.
    """
    from jdissect.base.csv_cells import csv_text
    from jdissect.results.layer_result import exact

    rows: list[tuple] = [("layer", "unit", "description", "similarity")]
    for layer, result in results.items():
        if findings:
            formulas = findings[layer].formulas
            texts, ious = formulas.formulas, formulas.iou
        else:
            texts = [result.concepts[c] if c >= 0 else "" for c in result.best_concept]
            ious = result.best_iou
        named = result.best_concept >= 0
        for name, there, text, iou in zip(
            result.unit_names, named, texts, ious, strict=True
        ):
            if there and text:
                rows.append((layer, str(name), text, exact(iou)))
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
    concept), and the scores of `scoring.from_counts`; null for those whose counts were
    not kept. A unit is a number, or text such as `12-` if lower tails count.
    """
    import numpy as np
    import pyarrow

    from jdissect.scoring import from_counts, of_result

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
            "run": _names([run], np.zeros(len(unit))),
            "layer": _names([layer], np.zeros(len(unit))),
            "unit": _units(result, unit),
            "concept": _names(concepts, of_name[column]),
            "category": _names(categories, place[column]),
            "iou": iou[unit, column],  # float64, as in comparisons
            "intersection": result.intersection[unit, column],
            "union": result.union[unit, column],
            "threshold": result.shown_thresholds[unit],
            "is_best": result.best_concept[unit] == column,
        }
        scores = of_result.of_pairs(result, unit, column)
        unknown = pyarrow.nulls(len(unit), pyarrow.float64())
        columns |= {
            name: scores.get(name, unknown)
            for name in from_counts.NAMES
            if name not in columns
        }
        tables.append(pyarrow.table(columns))
    return _written(pyarrow.concat_tables(tables))


def _names(values, numbers) -> Any:
    """Returns texts by their number."""
    import numpy as np
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(np.asarray(numbers, np.int32)), pyarrow.array(list(values))
    )


def _units(result: Any, unit: Any) -> Any:
    """Returns names of units: numbers, or texts if lower tails count."""
    if result.tail == "upper":
        return unit.astype("int32")
    return _names(result.unit_names.tolist(), unit)


def _written(table: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    table = table.unify_dictionaries()
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
