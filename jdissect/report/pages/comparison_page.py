"""Writes a comparison's `report.html`: one concept in several networks side by side.

For each concept it shows the best unit of each network. Within the page's size limit,
the pictures of 9,000 units have less room than those of one run, so fewer top images
are shown if there are many.
"""

import base64
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.concepts import reported_categories
from jdissect.data.source import Readable
from jdissect.report import compared_findings
from jdissect.report.compared_findings import ComparedFindings
from jdissect.report.figures import palette
from jdissect.report.pages import embedding, layer_data, masks, pictures
from jdissect.report.pages.page import CHUNK, MASK_BYTES, NAME, counts_table, image_name
from jdissect.report.probe_images import ProbeImages, open_images, read_pixels
from jdissect.results.layer_result import Result

if TYPE_CHECKING:
    from jdissect.analysis.comparison import Comparison

SCRIPTS = (
    *("shared.js", "pictures.js", "list.js", "changes.js", "formula_changes.js"),
    "comparison.js",
)
_SMALLEST = 64  # pixels; fewer top images are preferred to smaller ones
_MARGIN = 60_000  # bytes


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedModel:
    """One network of a comparison.

    Attributes:
      name: unique name among the compared networks.
      result: result of one of its layers.
      estimates: `uncertainty.LayerEstimates`; None if not known.
      source: source of its images, the same object if networks share them; None gives
        no pictures.
      error: top-1 error in percent; None if not known.
      formulas: {formula: IoU of the best unit for it}.
    """

    name: str
    result: Result
    estimates: Any | None = None
    source: Readable | None = None
    error: float | None = None
    formulas: Mapping[str, float] = dataclasses.field(default_factory=dict)


def write_comparison(
    folder: str | os.PathLike,
    models: Sequence[ComparedModel],
    figures: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    thresholds: Sequence[float] = (),
    limit: int = embedding.LIMIT,
    heading: str = "",
    found: Sequence[Sequence[str]] = (),
    hint: str = "",
) -> paths.Path:
    """Writes FOLDER/report.html.

    Args:
      folder: folder to write to; it is created if missing.
      models: one or more models with the same concepts, the baseline first.
      figures: (title, SVG), shown at the top.
      notes: lines that a reader must know.
      thresholds: IoU thresholds of the tables; by default those of the first model.
      limit: maximum bytes of the page.
      heading: heading of the page; by default the folder's name.
      found: rows of `compared_findings.table`, the heading first.
      hint: a line below them.

    Returns:
      the path of the page.

    Raises:
      ValueError: there are no models, or their concepts differ.
      OSError, UserError: see `atomic_files.write_whole`.
    """
    folder = paths.from_user(folder)
    heading = heading or folder.name
    page = render(
        models,
        figures,
        notes,
        thresholds,
        heading=heading,
        limit=limit,
        found=found,
        hint=hint,
    )
    paths.make_folder(folder)
    write_whole(folder / NAME, page)
    return folder / NAME


def write_of(
    comparison: "Comparison",
    folder: str | os.PathLike,
    figures: Mapping[str, str],
    data_path: str = "",
    heading: str = "",
    known: ComparedFindings | None = None,
) -> paths.Path:
    """Writes the page of a `comparison.Comparison`, opening its runs' images.

    Args:
      comparison: comparison of runs.
      folder: folder to write to; it is created if missing.
      figures: {title: SVG}.
      data_path: folder of the images, in place of the runs' configs.
      heading: heading of the page; by default the folder's name.
      known: what is known of the networks beside their counts.
    """
    sources: dict[Any, ProbeImages | None] = {}
    models = []
    for model in comparison.models:
        # Networks on the same images share a source, and so their thumbnails.
        run = model.run
        key = (str(run.config.get("data")), run.names, run.hashes)
        if key not in sources:
            sources[key] = open_images(run, data_path=data_path)
        models.append(
            ComparedModel(
                model.name,
                model.result,
                comparison.estimates(model),
                sources[key],
                model.error,
                compared_findings.best_formulas(known, model.name) if known else {},
            )
        )
    path = write_comparison(
        folder,
        models,
        tuple(figures.items()),
        comparison.notes,
        comparison.thresholds,
        heading=heading,
        found=compared_findings.table(comparison, known) if known else (),
        hint=known.note if known else "",
    )
    for images in filter(None, sources.values()):
        images.tell()
    return path


def render(
    models: Sequence[ComparedModel],
    figures: Sequence[tuple[str, str]],
    notes: Sequence[str],
    thresholds: Sequence[float] = (),
    *,
    heading: str,
    limit: int = embedding.LIMIT,
    found: Sequence[Sequence[str]] = (),
    hint: str = "",
) -> bytes:
    """Returns the page; arguments and errors as for `write_comparison`."""
    if not models:
        raise ValueError("there is nothing to compare")
    first = models[0].result
    for model in models[1:]:
        same = model.result.concepts == first.concepts
        if not same or model.result.categories != first.categories:
            raise ValueError(
                f"{model.name} and {models[0].name} have different concepts"
            )
    sources = list(
        {id(m.source): m.source for m in models if m.source is not None}.values()
    )
    shown = [_Shown(m, sources, MASK_BYTES // len(models)) for m in models]
    content = {
        "heading": heading,
        "notes": notes,
        "figures": [(title, _image(svg)) for title, svg in figures],
        "tables": _tables(models, tuple(thresholds) or first.iou_thresholds),
        "with_intervals": any(model.estimates is not None for model in models),
        "found": [[layer_data.short(cell) for cell in row] for row in found],
        "with_formulas": any(model.formulas for model in models),
        "hint": hint,
        "with_masks": all(one.runs is not None for one in shown),
        "lost": 0,
    }
    ranks = max(one.model.result.top_image.shape[1] for one in shown)
    page = _finished(content, shown, ranks, None)
    if sources:
        made = pictures.make(
            lambda image: read_pixels(sources[image[0]], image[1]),
            [[i for o in shown for i in o.pictures(rank)] for rank in range(ranks)],
            limit - len(page) - _MARGIN,
            _SMALLEST,
        )
        content["lost"] = sum(len(getattr(source, "lost", ())) for source in sources)
        page = _finished(content, shown, made.ranks, made)
    return page


class _Shown:
    """The units of a model that the page shows: the best for each concept."""

    def __init__(self, model: ComparedModel, sources: Sequence, mask_bytes: int):
        self.model = model
        places = [n for n, source in enumerate(sources) if source is model.source]
        self._source = places[0] if places else -1
        self._names = () if model.source is None else model.source.names
        self.unit, self.iou = layer_data.best_units(model.result)
        here = self.unit[self.iou > 0]
        # High IoU first: those units keep their pictures if room is short.
        order = np.argsort(-self.iou[self.iou > 0], kind="stable")
        self.units = np.array(list(dict.fromkeys(here[order].tolist())), np.int64)
        self.place = np.full(len(model.result.thresholds), -1)
        self.place[self.units] = np.arange(len(self.units))
        k = model.result.top_image.shape[1]
        self.runs = masks.encode(model.result, self.units, k, mask_bytes)

    def images(self, ranks: int) -> list[list[tuple[int, int]]]:
        """Returns (number of the source, image) of each unit's first top images."""
        top = self.model.result.top_image[self.units, :ranks]
        return [[(self._source, int(index)) for index in row] for row in top]

    def pictures(self, rank: int) -> list[tuple[int, int]]:
        """Returns the images of one rank that have a source to read them from."""
        if self._source < 0:
            return []
        return [image for row in self.images(rank + 1) for image in row[rank:]]

    def name(self, index: int) -> str:
        """Returns the name of an image."""
        return image_name(self._names, index)

    def packed(self, ranks: int, place_of: Mapping) -> dict[str, Any]:
        """Returns the data that the page's script reads."""
        result = self.model.result
        places = [[place_of[image] for image in row] for row in self.images(ranks)]
        concept_place = np.where(self.iou > 0, self.place[self.unit], -1)
        return {
            "units": len(result.thresholds),
            "ends": layer_data.ends(result),
            "k": min(ranks, result.top_image.shape[1]),
            "best": embedding.packed(result.best_concept, "i4"),
            "iou": embedding.packed(result.best_iou, "f8"),
            "conceptUnit": embedding.packed_integers(self.unit),
            "conceptPlace": embedding.packed(concept_place, "i4"),
            "conceptIou": embedding.packed(self.iou, "f8"),
            "topImage": embedding.packed_integers(np.array(places, np.int64)),
        }


def _finished(content, shown, ranks: int, made: pictures.Pictures | None) -> bytes:
    first = shown[0].model.result
    names: dict[tuple[int, int], str] = {}
    for one in shown:
        for image in (image for row in one.images(ranks) for image in row):
            if image not in names:
                names[image] = one.name(image[1])
    place_of = {image: place for place, image in enumerate(names)}
    categories = reported_categories(first.categories)
    fills = palette.fills(categories)
    source = next((o.model.source for o in shown if o.model.source is not None), None)
    page = {
        "categories": [
            {"name": layer_data.short(name), "color": fills[name].color}
            for name in categories
        ],
        **layer_data.described(first, categories),
        "models": [
            {
                "name": layer_data.short(one.model.name),
                "error": one.model.error,
                "formulas": embedding.texts(
                    [layer_data.short(text) for text in one.model.formulas]
                ),
                "formulaIou": embedding.packed(
                    np.array(list(one.model.formulas.values()), np.float64), "f8"
                ),
                **one.packed(ranks, place_of),
            }
            for one in shown
        ],
        "images": list(names.values()),
        "shape": list(source.image_shape) if source is not None else [1, 1],
        "chunk": CHUNK,
        "mime": "",
    }
    blocks = [
        (f"masks-{n}", embedding.json_text(layer_data.mask_arrays(one.runs)))
        for n, one in enumerate(shown)
    ]
    if made is not None and made.encoded:
        page["mime"] = made.mime
        encoded = [made.encoded.get(image, b"") for image in names]
        for number, text in enumerate(embedding.chunks(encoded, CHUNK)):
            blocks.append((f"pictures-{number}", text))
    return embedding.render(
        "comparison.html",
        SCRIPTS,
        **{
            **content,
            "categories": page["categories"],
            "with_pictures": bool(page["mime"]),
            "page": embedding.json_text(page),
            "first_block": ("none", embedding.json_text(None)),
            "blocks": blocks,
        },
    )


def _tables(models: Sequence[ComparedModel], thresholds) -> list[dict[str, Any]]:
    """Returns one table per threshold, with one row per model."""
    of_models = [counts_table(m.result, m.estimates, thresholds) for m in models]
    return [
        {
            "threshold": threshold,
            "rows": [
                (layer_data.short(model.name), model.error, rows[n]["cells"])
                for model, rows in zip(models, of_models, strict=True)
            ],
        }
        for n, threshold in enumerate(thresholds)
    ]


def _image(svg: str) -> str:
    """Embeds an SVG as an image, so that its styles and scripts stay isolated."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
