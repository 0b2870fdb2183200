"""The result of one layer, and its files.

A unit's concept is the one of highest IoU (the lowest number on a tie; a unit that
never fires, or only where no concept is, has none). The unit is a *detector* of it if
that IoU exceeds a threshold. *Unique concepts* counts the distinct concepts among the
detectors, by category.
Source: Bau et al. 2017, section 3; counts as in netdissect 2020.
"""

import dataclasses
import fractions
import functools
import io
import json
import os
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

from jdissect.base import paths, replacing, unit_names
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.concepts import reported_categories
from jdissect.base.csv_cells import csv_text
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.results import group_counts

IOU_THRESHOLDS = (0.03, 0.04, 0.05)
FEW_IMAGES = 30  # with fewer, counts say little about a network
BLOCKS, BY_IMAGE, TOP_MAPS = "blocks.npz", "by_image.npz", "topmaps.npz"
SUMMARY = "summary.json"
# What `formulas.stored` writes beside a result.
FORMULAS_TABLE, FORMULAS = "formulas.csv", "formulas.json"
_FILES = (
    *("dissection.npz", "topk.npz", "histogram.npz", TOP_MAPS, BLOCKS, BY_IMAGE),
    *(FORMULAS, FORMULAS_TABLE),
    # Of `verification.verified`.
    *("verified.csv", "verified.json", "verified.png"),
    *("units.csv", "report.html", SUMMARY),
    *("chance.npz", "chance.csv", "chance.json"),  # of `chance_level.stored`
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One layer's units against all concepts.

    A unit that fires in the lower tail is counted as the negated activation, in every
    array; `shown_thresholds` and the like have the activation's own sign.

    Attributes:
      thresholds: float32[unit], T_k: a unit fires where its activation exceeds it.
      intersection: int64[unit, concept], pixels of both unit and concept.
      union: int64[unit, concept], pixels of either.
      fires: int64[unit], pixels where the unit fires.
      concepts, categories: names by column; together they identify a concept.
      top_value: float32[unit, k], highest activations (raw map), descending.
      top_image: int32[unit, k], the images they occur in.
      histogram_counts: int64[unit, bin] of the upsampled pixels.
      histogram_edges: float32[unit, bin + 1].
      images: number of images counted.
      quantile: maximum share of pixels above T_k.
      iou_thresholds: thresholds at which `summary` counts.
      model, layer: names of the model and the layer.
      mask_shape: (height, width) of the grid on which masks are compared; None for
        results of an older version.
      top_map: float32[unit, k, height, width], feature maps of each unit on its top
        images, before upsampling; None if not kept.
      blocks: the counts by block of images (`group_counts.block`); None if not kept.
      by_image: the counts by image, for small sets; None if not kept.
      tail: where units fire, a key of `unit_names.TAILS`; with 'both', units 2k and
        2k + 1 are the upper and the lower end of the network's unit k.
    """

    thresholds: Float[np.ndarray, " unit"]
    intersection: Int[np.ndarray, "unit concept"]
    union: Int[np.ndarray, "unit concept"]
    fires: Int[np.ndarray, " unit"]
    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    top_value: Float[np.ndarray, "unit k"]
    top_image: Int[np.ndarray, "unit k"]
    histogram_counts: Int[np.ndarray, "unit bin"]
    histogram_edges: Float[np.ndarray, "unit edge"]
    images: int
    quantile: float
    iou_thresholds: tuple[float, ...] = IOU_THRESHOLDS
    model: str = ""
    layer: str = ""
    mask_shape: tuple[int, int] | None = None
    top_map: Float[np.ndarray, "unit k height width"] | None = None
    blocks: group_counts.GroupedCounts | None = None
    by_image: group_counts.GroupedCounts | None = None
    tail: str = "upper"

    @functools.cached_property
    def unit_names(self) -> Shaped[np.ndarray, " unit"]:
        """Names of the units, for people: numbers, or text such as `12-`."""
        return unit_names.names(len(self.thresholds), self.tail)

    @functools.cached_property
    def signs(self) -> Int8[np.ndarray, " unit"]:
        """-1 for a unit that fires in the lower tail, else 1."""
        return unit_names.signs(len(self.thresholds), self.tail)

    @property
    def shown_thresholds(self) -> Float[np.ndarray, " unit"]:
        """T_k in the activation's own sign: a unit `12-` fires below it."""
        return _signed(self.thresholds, self.signs)

    @property
    def shown_top_value(self) -> Float[np.ndarray, "unit k"]:
        """`top_value` in the activation's own sign: of a unit `12-` the lowest."""
        return _signed(self.top_value, self.signs)

    def __repr__(self) -> str:
        name = " of ".join(filter(None, (self.layer, self.model))) or "a layer"
        counts = [
            f"{self.unique_concepts(t)['total']} unique concepts, "
            f"{int(self.detectors(t).sum())} detectors at IoU > {t:g}"
            for t in self.iou_thresholds
        ]
        units, images = len(self.thresholds), self.images
        heading = f"<Result: {printable(name, 80)}, {units:,} units, {images:,} images"
        return "\n  ".join([heading, *counts]) + ">"

    @property
    def can_fire(self) -> bool:
        """Whether any unit can fire: False if the quantile is less than one pixel.

        True if the number of pixels is not known (`mask_shape` is None).
        """
        if self.mask_shape is None:
            return True
        pixels = self.images * self.mask_shape[0] * self.mask_shape[1]
        return fractions.Fraction(str(self.quantile)) * pixels >= 1

    def replace(self, **changes) -> "Result":
        """Returns a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    @functools.cached_property
    def _quotient(self) -> Float[np.ndarray, "unit concept"]:
        return self.intersection / np.maximum(self.union, 1)

    @functools.cached_property
    def iou(self) -> Float[np.ndarray, "unit concept"]:
        """float32; 0/0 is 0. `detectors` compares thresholds with float64 values."""
        return self._quotient.astype(np.float32)

    @functools.cached_property
    def best_concept(self) -> Int[np.ndarray, " unit"]:
        """Column of each unit's concept; -1 for a unit that overlaps none."""
        if not self.concepts:
            return np.full(len(self.thresholds), -1)
        return np.where(self.best_iou > 0, self._quotient.argmax(axis=1), -1)

    @functools.cached_property
    def best_iou(self) -> Float[np.ndarray, " unit"]:
        """float64 IoU with that concept; 0 without one."""
        if not self.concepts:
            return np.zeros(len(self.thresholds))
        return np.where(self.fires > 0, self._quotient.max(axis=1), 0.0)

    def detectors(self, threshold: float) -> Bool[np.ndarray, " unit"]:
        """Returns which units have a concept with an IoU above `threshold`."""
        return (self.best_concept >= 0) & (self.best_iou > threshold)

    def _by_category(self, columns) -> dict[str, int]:
        found = [self.categories[column] for column in columns]
        names = reported_categories(self.categories)
        counts = {name: found.count(name) for name in names}
        return {**counts, "total": len(found)}

    def unique_concepts(self, threshold: float) -> dict[str, int]:
        """Counts the detectors' distinct concepts by category, and their `total`."""
        return self._by_category(
            np.unique(self.best_concept[self.detectors(threshold)])
        )

    def detector_units(self, threshold: float) -> dict[str, int]:
        """Counts detectors by their concept's category, and their `total`."""
        return self._by_category(self.best_concept[self.detectors(threshold)])

    def summary(self) -> dict:
        """Returns the content of a layer's `summary.json`."""
        return {
            "model": self.model,
            "layer": self.layer,
            "images": self.images,
            "units": len(self.thresholds),
            "quantile": self.quantile,
            **({"mask_shape": list(self.mask_shape)} if self.mask_shape else {}),
            **({"tail": self.tail} if self.tail != "upper" else {}),
            "iou_thresholds": {
                str(threshold): {
                    "unique_concepts": self.unique_concepts(threshold),
                    "detector_units": self.detector_units(threshold),
                }
                for threshold in self.iou_thresholds
            },
        }

    def save(self, folder: str | os.PathLike) -> None:
        """Writes dissection.npz, topk.npz, histogram.npz, units.csv, summary.json.

        Also topmaps.npz, blocks.npz and by_image.npz, if there is content for them. An
        existing result stays until this one is complete (see `replacing`).

        Raises:
          UserError: the folder is that of a run.
          OSError: a file cannot be written; no partial file is left.
        """
        folder = paths.from_user(folder)
        _refuse_run(folder)
        with replacing.content_of(folder, SUMMARY, _FILES) as place:
            self._write(place)

    def save_summary(self, folder: str | os.PathLike) -> None:
        """Rewrites the summary.json of a saved result, for other IoU thresholds.

        Raises:
          OSError: the file cannot be written; the old one stays.
        """
        text = json.dumps(self.summary(), indent=2, ensure_ascii=False)
        write_whole(paths.from_user(folder) / SUMMARY, utf8(text))

    def _write(self, folder: paths.Path) -> None:
        arrays = {
            "dissection.npz": {
                "thresholds": self.thresholds,
                "intersection": self.intersection,
                "union": self.union,
                "fires": self.fires,
                "iou": self.iou,
                "concepts": np.array(self.concepts, dtype=str),
                "categories": np.array(self.categories, dtype=str),
            },
            "topk.npz": {"value": self.top_value, "image": self.top_image},
            "histogram.npz": {
                "counts": self.histogram_counts,
                "edges": self.histogram_edges,
            },
        }
        if self.top_map is not None:
            arrays[TOP_MAPS] = {"map": self.top_map}
        for name, content in arrays.items():
            file = io.BytesIO()
            np.savez_compressed(file, **content)  # type: ignore[arg-type]  # by name
            write_whole(folder / name, file.getvalue())
        for name, counts in ((BLOCKS, self.blocks), (BY_IMAGE, self.by_image)):
            if counts is not None:
                counts.save(folder / name)
        write_whole(folder / "units.csv", utf8(csv_text(self._units())))
        # Last: a folder with a summary is complete.
        self.save_summary(folder)

    def _units(self) -> Iterator[tuple]:
        """Yields the rows of units.csv, with all digits of the IoU for thresholding."""
        yield ("unit", "concept", "category", "iou", "threshold")
        shown = self.shown_thresholds
        for unit, column in enumerate(self.best_concept):
            named = column >= 0
            yield (
                str(self.unit_names[unit]),
                self.concepts[column] if named else "",
                self.categories[column] if named else "",
                exact(self.best_iou[unit]),
                float(shown[unit]),
            )


def _signed(values: np.ndarray, signs: Int8[np.ndarray, " unit"]) -> np.ndarray:
    """Multiplies by the units' signs; zero stays +0."""
    if (signs > 0).all():
        return values
    return values * signs.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32) + 0


def exact(iou: float) -> str:
    """Formats a float64 exactly, with at least six decimals."""
    rounded = f"{iou:.6f}"
    return rounded if float(rounded) == iou else repr(float(iou))


def _refuse_run(folder: paths.Path) -> None:
    """Rejects the folder of a run, whose summary a layer's must not replace."""
    path = folder / SUMMARY
    try:
        summary = json.loads(paths.read_bytes(path)) if path.is_file() else {}
    except ValueError:
        return
    if isinstance(summary, dict) and "format_version" in summary:
        raise UserError(f"{folder} is a run; save the result to a folder of its own")


def column_names(
    concepts: Sequence[tuple[str, str]], columns: Int[np.ndarray, " column"]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (names, categories) of the given numbers of a vocabulary."""
    picked = [concepts[number] for number in columns]
    return tuple(name for name, _ in picked), tuple(c for _, c in picked)
