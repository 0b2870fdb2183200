"""Writes a run's `report.html`: every unit, its concept, top images and masks.

The page is made for sharing: it opens from disk, needs no network access, and stays
within 15 MB for 2,048 units by fitting its thumbnails.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.concepts import reported_categories
from jdissect.data.source import ImageNames, Readable, Source
from jdissect.report.figures import palette
from jdissect.report.findings import KINDS, NOTHING, Findings, missing_line
from jdissect.report.findings import read as read_findings
from jdissect.report.pages import (
    embedding,
    findings_data,
    layer_data,
    masks,
    pictures,
)
from jdissect.report.probe_images import open_images, read_pixels
from jdissect.results.finished_run import StoredRun
from jdissect.results.layer_result import Result

NAME = "report.html"
CHUNK = 256  # pictures per block
MASK_BYTES = 4_000_000  # for all layers together
_MASK_SHARE = 0.375  # of what a page has beside units' lists and histograms
HISTOGRAM_BYTES = 2_500_000  # for all layers together
_MARGIN = 60_000  # bytes for what is known only with the pictures
SCRIPTS = (
    "shared.js",
    "pictures.js",
    "counts.js",
    "list.js",
    "findings.js",
    "unit.js",
    "report.js",
)


def write_report(
    run: StoredRun,
    estimates: Mapping[str, Any] | None = None,
    source: Source | None = None,
    data_path: str = "",
) -> paths.Path:
    """Writes RUN/report.html, all layers of a run in one page.

    Args:
      run: a finished run.
      estimates: `uncertainty.LayerEstimates` or None, by layer.
      source: source of the run's images; by default it is opened from the run's
        config. If that fails, the page has no pictures and a warning goes to stderr,
        also for images that differ from those that were counted.
      data_path: folder of the images, in place of the run's config.

    Returns:
      the path of the page.

    Raises:
      UserError: a layer's files are damaged.
      OSError: the page cannot be written.
    """
    images = open_images(run, source, data_path)
    results = {layer: run.result(layer) for layer in run.layers}
    found = {layer: read_findings(run, layer) for layer in run.layers}
    page = render(
        results,
        estimates or {},
        images,
        heading=run.name or "run",
        facts=_facts(run),
        names=run.names,
        findings=found,
        hint="" if run.by_itself else "RUN",
    )
    path = run.path / NAME
    write_whole(path, page)
    if images is not None:
        images.tell()
    return path


def render(
    results: Mapping[str, Result],
    estimates: Mapping[str, Any],
    source: Readable | None,
    *,
    heading: str,
    facts: Sequence[tuple[str, str]],
    names: Sequence[str],
    findings: Mapping[str, Findings] = {},
    hint: str = "",
    limit: int = embedding.LIMIT,
) -> bytes:
    """Returns the page.

    Args:
      results: results by layer.
      estimates: estimates by layer; missing or None if there are none.
      source: source of the images; None gives no pictures.
      heading: name of the run.
      facts: (name, value) shown at the top.
      names: names of all images, by index.
      findings: what is known beside the counts, by layer.
      hint: what the page names as the run where it says which command finds more; ''
        says nothing.
      limit: maximum bytes.
    """
    tops = [result.top_image for result in results.values()]
    shown = np.unique(np.concatenate([top.reshape(-1) for top in tops]))
    known = {layer: findings.get(layer, NOTHING) for layer in results}
    content = _content(results, estimates, known, hint, shown, limit)
    content["page"] |= {
        "images": [image_name(names, int(index)) for index in shown],
        "shape": list(source.image_shape) if source else [1, 1],
        "chunk": CHUNK,
    }
    content |= {"heading": heading, "facts": facts}
    content["lost"] = 0
    page = _finished(content, None, shown)
    if source is None or not len(shown):
        return page
    made = pictures.make(
        lambda index: read_pixels(source, index),
        _by_rank(tops),
        limit - len(page) - _MARGIN,
    )
    content["lost"] = len(getattr(source, "lost", ()))
    return _finished(content, made, shown)


def _by_rank(tops: Sequence[np.ndarray]) -> list[list[int]]:
    """Returns images by rank among the units' top images, over all layers."""
    ranks = max(top.shape[1] for top in tops)
    return [
        [int(i) for top in tops if rank < top.shape[1] for i in top[:, rank]]
        for rank in range(ranks)
    ]


def _content(
    results, estimates, findings, hint: str, shown, limit: int
) -> dict[str, Any]:
    """Returns the template's content except for pictures."""
    present = [name for result in results.values() for name in result.categories]
    categories = reported_categories(present)
    colors = {name: fill.color for name, fill in palette.fills(categories).items()}
    layers, units, scores, histograms, overlays = [], [], [], [], []
    number_of_units = sum(len(result.thresholds) for result in results.values())
    bins = HISTOGRAM_BYTES // (8 * max(number_of_units, 1))
    for number, (name, result) in enumerate(results.items()):
        known = estimates.get(name)
        arrays = layer_data.unit_arrays(result, shown)
        if known is not None:
            arrays["stability"] = embedding.packed(known.stability, "f4")
        arrays |= findings_data.unit_arrays(result, findings[name])
        table = findings_data.score_arrays(
            result, findings[name], findings_data.SCORE_BYTES // len(results)
        )
        scores.append((f"scores-{number}", embedding.json_text(table)))
        missing = set(KINDS) - set(findings[name].kinds)
        layers.append(
            {
                **layer_data.described(result, categories),
                "name": name,
                "scoreNames": table["names"]["texts"] if table else [],
                "missing": missing_line(missing, hint) if hint else "",
            }
        )
        units.append((f"units-{number}", embedding.json_text(arrays)))
        shape = layer_data.histogram_arrays(result, bins)
        histograms.append((f"histograms-{number}", embedding.json_text(shape)))
    # Of many units, only some ranks have masks, so that there is room for pictures.
    room = limit - sum(len(text) for _, text in [*units, *scores, *histograms])
    most = min(MASK_BYTES, int(_MASK_SHARE * max(room, 0))) // len(results)
    for number, result in enumerate(results.values()):
        every, k = np.arange(len(result.thresholds)), result.top_image.shape[1]
        found = layer_data.mask_arrays(masks.encode(result, every, k, most))
        overlays.append((f"masks-{number}", embedding.json_text(found)))
    return {
        "tables": [
            counts_table(result, estimates.get(name))
            for name, result in results.items()
        ],
        "layers": list(results),
        "with_intervals": any(estimates.get(name) is not None for name in results),
        "with_masks": any(
            result.top_map is not None and result.mask_shape is not None
            for result in results.values()
        ),
        "page": {
            "layers": layers,
            "scores": findings_data.labels(),
            "categories": [
                {"name": layer_data.short(name), "color": color}
                for name, color in colors.items()
            ],
        },
        "first_block": units[0],
        "blocks": [*units[1:], *scores, *overlays, *histograms],
    }


def _finished(content, made: pictures.Pictures | None, shown) -> bytes:
    page, blocks = dict(content["page"]), list(content["blocks"])
    page["mime"] = ""
    if made is not None and made.encoded:
        encoded = [made.encoded.get(int(index), b"") for index in shown]
        page["mime"] = made.mime
        for number, text in enumerate(embedding.chunks(encoded, CHUNK)):
            blocks.append((f"pictures-{number}", text))
    return embedding.render(
        "report.html",
        SCRIPTS,
        **{
            **content,
            "page": embedding.json_text(page),
            "categories": page["categories"],
            "blocks": blocks,
            "with_pictures": bool(page["mime"]),
        },
    )


def counts_table(
    result: Result, estimates: Any | None, thresholds: Sequence[float] = ()
) -> list[dict[str, Any]]:
    """Returns counts at several thresholds, for a template.

    Args:
      result: result of a layer.
      estimates: its `uncertainty.LayerEstimates`, or None.
      thresholds: IoU thresholds; by default those of the result.

    Returns:
      one row per threshold: `threshold`, and `cells` of `category`, `concepts`, `units`
      and `estimate` (None if not known).
    """
    rows = []
    for threshold in thresholds or result.iou_thresholds:
        units = result.detector_units(threshold)
        known = estimates.counts.get(threshold, {}) if estimates is not None else {}
        cells = [
            {
                "category": name,
                "concepts": count,
                "units": units[name],
                "estimate": known.get(name),
            }
            for name, count in result.unique_concepts(threshold).items()
        ]
        rows.append({"threshold": threshold, "cells": cells})
    return rows


def _facts(run: StoredRun) -> list[tuple[str, str]]:
    def get(*keys):
        value: Any = run.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return "" if value in (None, "") else str(value)

    # Pages are shared: of a path they show only the last name.
    data = (get("data", "source"), get("data", "name"), _last_name(get("data", "path")))
    first = run.result(run.layers[0])
    facts = [
        ("network", get("model", "name") or first.model),
        ("weights", _last_name(get("model", "weights"))),
        ("images", f"{run.images:,}"),
        ("skipped", f"{len(run.skipped)}" if run.skipped else ""),
        ("data", " ".join(filter(None, data))),
        ("labels by", get("segmenter", "name")),
        ("quantile", get("quantile") or f"{first.quantile:g}"),
        ("tail", first.tail if first.tail != "upper" else ""),
        ("units of", _last_name(get("model", "units"))),
    ]
    return [(what, layer_data.short(value)) for what, value in facts if value]


def _last_name(path: str) -> str:
    """Returns the last name of a path of any system, or of a URL."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def image_name(names: ImageNames, index: int) -> str:
    """Returns an image's name; a long one keeps its end, which says most."""
    if not 0 <= index < len(names):
        return f"image {index}"
    name, limit = names[index], layer_data.NAME
    return name if len(name) <= limit else f"…{name[1 - limit :]}"
