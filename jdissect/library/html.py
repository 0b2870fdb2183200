"""Writes a result as HTML for a notebook: counts, and the best units with pictures.

The HTML has no colors of its own but for pictures and lines, so that it suits light and
dark notebooks. Names come from vocabularies and file systems; all are escaped.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.source import Readable
from jdissect.report import findings_table
from jdissect.report.figures import detector_pictures
from jdissect.report.findings import NOTHING, Findings
from jdissect.report.pages.layer_data import short
from jdissect.report.pages.page import image_name
from jdissect.report.probe_images import read_pixels
from jdissect.report.tables.layer import remarks
from jdissect.report.top_masks import top_masks
from jdissect.results.layer_result import Result

ALPHA = 0.05  # false discovery rate of "above chance"
_LEFT = ("concept", "category", "formula", "verified", "fires in")
UNITS = 6  # best units, each of another concept
IMAGES = 5  # per unit
SIDE = 96  # longer side of a picture in pixels
_QUALITY = 70
_LINE = "border-bottom:1px solid rgba(128,128,128,.45);background:none"


def result_html(
    result: Result, pictures: Readable | None, findings: Findings = NOTHING
) -> str:
    """Returns the HTML of a layer's result.

    Args:
      result: result of a layer.
      pictures: its images; None shows no pictures.
      findings: what other commands found for it.
    """
    parts = [_heading(result), _counts(result)]
    parts += [Markup("<p>{}</p>").format(line) for line in _found(result, findings)]
    best = _best_units(result)
    if best:
        parts.append(Markup("<p><b>Best units</b>, each of another concept</p>"))
        parts.append(_units_table(result, pictures, best, findings))
    parts += [Markup("<p>{}</p>").format(text) for text in remarks(result)]
    style = "max-width:60em;overflow-x:auto"
    return Markup("<div style='{}'>{}</div>").format(style, Markup("").join(parts))


def _heading(result: Result) -> Markup:
    of = f" of {short(result.model)}" if result.model else ""
    return Markup("<p><b>{}</b>{}: {:,} units, {:,} images, quantile {:g}</p>").format(
        short(result.layer or "layer"),
        of,
        len(result.thresholds),
        result.images,
        result.quantile,
    )


def _counts(result: Result) -> Markup:
    rows: list[list] = [["IoU >", "", *map(short, result.unique_concepts(0.0))]]
    for threshold in result.iou_thresholds:
        concepts = result.unique_concepts(threshold).values()
        units = result.detector_units(threshold).values()
        rows.append([f"{threshold:g}", "unique concepts", *concepts])
        rows.append(["", "detector units", *units])
    return _table(rows, left=(1,))


def _found(result: Result, findings: Findings) -> list[str]:
    """Returns a line per kind of finding, at the middle IoU threshold."""
    if not result.iou_thresholds:
        return []
    threshold = result.iou_thresholds[len(result.iou_thresholds) // 2]
    lines = []
    if (chance := findings.chance) is not None:
        count = chance.detectors(threshold)
        lines.append(
            f"IoU > {threshold:g}: {int(result.detectors(threshold).sum()):,} "
            f"detectors, by chance alone {count.mean:.1f} (95 %: at most {count.high})"
        )
    if (formulas := findings.formulas) is not None:
        lines.append(
            f"IoU > {threshold:g}: {int((formulas.iou > threshold).sum()):,} detectors "
            f"of {len(formulas.unique(threshold)):,} formulas"
        )
    if (labels := findings.verified) is not None:
        share = labels.share(threshold)
        if share.judged:
            lines.append(
                f"IoU > {threshold:g}: {share.share:.0%} of the {share.judged:,} "
                "detectors that could be judged are verified"
            )
    return lines


def _best_units(result: Result) -> list[int]:
    """Returns the units of highest IoU, each for another concept."""
    found: dict[int, int] = {}  # concept -> unit
    for unit in np.argsort(-result.best_iou, kind="stable"):
        column = int(result.best_concept[unit])
        if column >= 0:
            found.setdefault(column, int(unit))
        if len(found) == UNITS:
            break
    return list(found.values())


def _units_table(result, pictures, units: Sequence[int], findings: Findings) -> Markup:
    masks = _masks(result, units)
    more = _more_cells(result, findings)
    heading, rows = ["unit", "concept", "category", "IoU", *more], []
    for place, unit in enumerate(units):
        column = result.best_concept[unit]
        images = Markup("").join(
            _picture(pictures, result, unit, rank, masks and masks[place])
            for rank in range(min(IMAGES, result.top_image.shape[1]))
        )
        rows.append(
            [
                result.unit_names[unit],
                short(result.concepts[column]),
                short(result.categories[column]),
                f"{result.best_iou[unit]:.3f}",
                *(cells[unit] for cells in more.values()),
                images,
            ]
        )
    if any(row[-1] for row in rows):
        heading.append("fires in")
    else:
        rows = [row[:-1] for row in rows]
    left = [place for place, name in enumerate(heading) if name in _LEFT]
    return _table([heading, *rows], left)


def known_of(result: Result, unit: int, findings: Findings) -> str:
    """Returns a unit's formula, p-value and verified label as a short text."""
    cells = _more_cells(result, findings)
    parts = [cells["formula"][unit]] if "formula" in cells else []
    parts += [f"p {cells['p'][unit]}"] if "p" in cells else []
    if "verified" in cells and cells["verified"][unit]:
        parts.append("verified" if cells["verified"][unit] == "yes" else "not verified")
    return " · ".join(filter(None, parts))


def _more_cells(result: Result, findings: Findings) -> dict[str, list[str]]:
    """Returns {heading: text per unit} of what is known beside the counts."""
    known = findings_table.columns(result, findings)
    cells = {}
    if "formula" in known:
        cells["formula"] = [
            f"{short(formula)}, {iou:.3f}" if formula else ""
            for formula, iou in zip(known["formula"], known["formula_iou"], strict=True)
        ]
    if "p" in known:
        cells["p"] = [
            f"{p:.2g}" + " (not above chance)" * (q > ALPHA)
            for p, q in zip(known["p"], known["q"], strict=True)
        ]
    if "verified" in known:
        words = {True: "yes", False: "no", None: ""}
        cells["verified"] = [words[value] for value in known["verified"]]
    return cells


def _masks(result: Result, units: Sequence[int]) -> list[np.ndarray] | None:
    try:
        return list(top_masks(result, units))
    except UserError:  # of an older version
        return None


def _picture(pictures, result, unit, rank, masks) -> Markup:
    if pictures is None:
        return Markup("")
    index = int(result.top_image[unit, rank])
    value = result.shown_top_value[unit, rank]
    pixels = read_pixels(pictures, index)
    if pixels is None:
        return Markup("")
    if masks is not None:
        pixels = detector_pictures.masked(_fitted(pixels), masks[rank])
    return Markup("<img src='{}' alt='{}' title='{}' style='margin:1px'>").format(
        _data_url(pixels),
        f"image {index}",
        f"{image_name(pictures.names, index)}: {value:.4g}",
    )


def _fitted(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(image.resize((width, height), bilinear))


def _data_url(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _table(rows: Sequence[Sequence], left: Sequence[int]) -> Markup:
    """Returns a table with a heading; columns align to the right but for `left`."""
    lines = []
    for number, row in enumerate(rows):
        cells = [
            Markup(
                "<{0} style='padding:.2em .7em;text-align:{1};{2}'>{3}</{0}>"
            ).format(
                "td" if number else "th",
                "left" if place in left else "right",
                _LINE,
                cell,
            )
            for place, cell in enumerate(row)
        ]
        lines.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    return Markup(
        "<table style='border-collapse:collapse;margin:.4em 0'>{}</table>"
    ).format(Markup("").join(lines))
