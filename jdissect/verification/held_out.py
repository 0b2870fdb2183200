"""Judges labels on images that did not choose them, for runs on photographs.

The 32 blocks of images are split into halves. Each half chooses the units' concepts by
IoU, as all images did for the run, and the other half judges them: the AUC of the
maxima of images that show the concept against those that do not, by their label maps.
Both directions are averaged, as for cross-fitted counts (`analysis.uncertainty`). So a
row tells how well labels chosen like its own hold on other images. Its note says where
a half chose another concept than the run.

Images with a concept differ from those without in much else, which the control only
partly shows. This is weaker evidence than pairs that differ in nothing but the concept.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.analysis import resampling, uncertainty
from jdissect.base.concepts import Concepts, categories, columns, first_numbers
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.dissection.features import Record
from jdissect.results.layer_result import Result
from jdissect.verification import separation
from jdissect.verification.counterfactuals import LEAST
from jdissect.verification.judgement import (
    NO_CONTROL,
    Contrast,
    Labels,
    Places,
    Rows,
    Shown,
    contrast,
)
from jdissect.verification.verified import HELD_OUT


def look(
    records: Iterable[Record],
    units: Mapping[str, Int[np.ndarray, " unit"]],
    concepts: Concepts,
    images: int,
) -> tuple[dict[str, Float[np.ndarray, "image unit"]], Shown]:
    """Returns {layer: maxima of the given units}, and what the images show.

    Args:
      records: feature maps and label maps of all images.
      units: {layer: numbers of units}.
      concepts: (name, category) by label number.
      images: number of images.
    """
    place, first = columns(concepts), first_numbers(concepts)
    names = categories(concepts)
    category = np.array([names.index(concepts[n][1]) for n in place], np.int64)
    there = np.zeros((images, len(place)), bool)
    absent = np.zeros((images, len(place)), bool)
    size = np.zeros(len(place))
    maxima = {n: np.zeros((images, len(u)), np.float32) for n, u in units.items()}
    for record in records:
        labels = first[record.labels()]
        for layer, found in maxima.items():
            maps = np.asarray(record.features[layer][..., units[layer]], np.float32)
            highest = maps.max(axis=(1, 2))
            found[record.index[record.valid]] = highest[record.valid]
        for row in np.flatnonzero(record.valid):
            counts = np.bincount(labels[row].ravel(), minlength=len(first))[place]
            share = counts / labels[row, 0].size
            image = record.index[row]
            there[image] = share >= LEAST
            absent[image] = counts == 0
            if record.annotated is not None:
                absent[image] &= np.asarray(record.annotated[row])[category]
            size += np.where(there[image], share, 0)
    size /= np.maximum(there.sum(axis=0), 1)
    return maxima, Shown(there, absent, size, [concepts[n][1] for n in place])


def halves(
    result: Result,
    blocks: Int[np.ndarray, " image"],
    counted: Bool[np.ndarray, " image"],
) -> tuple[Int[np.ndarray, "2 unit"], Bool[np.ndarray, "2 image"]]:
    """Returns the column that each half chooses for each unit, and its images.

    Args:
      result: result of the layer.
      blocks: block of every image.
      counted: whether each image was counted.

    Raises:
      UserError: the result has no counts by block, or too few blocks have images.
    """
    if why := uncertainty.why_not(result):
        raise UserError(f"layer '{result.layer}' cannot be verified: {why}")
    assert result.blocks is not None
    filled = np.unique(blocks[counted])
    first = np.zeros(result.blocks.groups)
    first[filled] = uncertainty.draws(len(filled))[1][0]
    second = np.isin(np.arange(len(first)), filled) - first
    found = resampling.candidates(result, result.blocks)
    chosen = np.full((2, len(result.thresholds)), -1)
    if len(found.unit):
        iou = found.iou(np.stack([first, second]))
        best = found.best(iou)
        column = np.where(
            np.take_along_axis(iou, best, axis=1) > 0, found.column[best], -1
        )
        chosen[:, found.unit[found.starts]] = column
    images = np.stack([first, second]).astype(bool)[:, blocks] & counted
    return chosen, images


def judge(
    result: Result,
    labels: Labels,
    maximum: Float[np.ndarray, "image row"],
    shown: Shown,
    chosen: Int[np.ndarray, "2 unit"],
    images: Bool[np.ndarray, "2 image"],
) -> Rows:
    """Judges the labels that each half chose on the other half.

    Args:
      result: result of the layer.
      labels: its labelled units.
      maximum: maxima of these units.
      shown: what the images show; columns as in the result.
      chosen, images: see `halves`.
    """
    rows, both = Rows(result, labels), _Both(len(labels.unit))
    for half in range(2):
        own = chosen[half][labels.unit]
        for column in np.unique(own):
            of = np.flatnonzero(own == column)
            if column < 0:
                both.lack(of, "a half of the images chose no concept")
                continue
            found = contrast(maximum[:, of], shown, int(column), images[1 - half])
            both.add(of, found, int(images[1 - half].sum()))
    both.set(rows)
    for row, unit in enumerate(labels.unit):
        others = [c for c in chosen[:, unit] if c not in (-1, labels.column[row])]
        names = " and ".join(printable(result.concepts[c], 80) for c in others)
        if names and not both.why[row]:
            rows.skip([row], f"chosen by half of the images: {names}")
    return rows


class _Both:
    """Averages what both halves judge; rows that one half cannot judge have one."""

    def __init__(self, count: int):
        self._halves, self._images = np.zeros(count), np.zeros(count, np.int64)
        # Of the AUC, the control's, and the difference.
        self._value, self._error = np.zeros((3, count)), np.zeros((3, count))
        self._with, self._controls = np.zeros((2, count), np.int64)
        self.why = [""] * count

    def lack(self, of: Places, why: str) -> None:
        for row in of:
            self.why[row] = why

    def add(self, of: Places, found: Contrast, images: int) -> None:
        if found.auc is None or found.control is None:
            why = f"only {found.why_not}" if found.why_not else NO_CONTROL
            self.lack(of, why)
            return
        contributions = [one.contribution for one in (found.auc, found.control)]
        contributions.append(contributions[0] - contributions[1])
        values = [found.auc.value, found.control.value]
        values.append(values[0] - values[1])
        for number, (value, one) in enumerate(zip(values, contributions, strict=True)):
            self._value[number, of] += value
            self._error[number, of] += separation.error(one)
        self._halves[of] += 1
        self._images[of] += images
        self._with[of] += found.images
        self._controls[of] += found.controls

    def set(self, rows: Rows) -> None:
        for row, (halves, images) in enumerate(
            zip(self._halves, self._images, strict=True)
        ):
            if not halves:
                rows.skip([row], self.why[row])
                continue
            value = self._value[:, row, None] / halves
            error = self._error[:, row, None] / halves**2
            auc, _, margin = (
                separation.estimates(one, spread, int(images))
                for one, spread in zip(value, error, strict=True)
            )
            self.why[row] = ""
            rows.set(
                [row],
                HELD_OUT,
                int(self._with[row]),
                auc=separation.inside(auc),
                maximum=value[0],
                controls=int(self._controls[row]),
                control=value[1],
                margin=margin,
            )
