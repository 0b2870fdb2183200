"""Judges the labels of units by their activations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.results.layer_result import Result
from jdissect.scenes import CONCEPTS
from jdissect.scenes.counterfactual import way
from jdissect.verification import separation
from jdissect.verification.counterfactuals import LEAST
from jdissect.verification.responses import MAXIMUM, MEAN, Pairs, Responses
from jdissect.verification.separation import Auc
from jdissect.verification.verified import HELD_OUT, SKIPPED, Verified

FEWEST = 10  # pairs with a control, or images of either kind; else nothing is judged
Places = Sequence[int] | Int[np.ndarray, " place"]


class Labels(NamedTuple):
    """Units with a label.

    Attributes:
      unit: int64[row], ascending.
      column: int64[row], the concept's column in the result.
    """

    unit: Int[np.ndarray, " row"]
    column: Int[np.ndarray, " row"]


def labels_of(result: Result, all_units: bool = False) -> Labels:
    """Returns the detectors at the result's lowest threshold, or all units with one."""
    lowest = min(result.iou_thresholds, default=0.0)
    named = result.best_concept >= 0 if all_units else result.detectors(lowest)
    unit = np.flatnonzero(named)
    return Labels(unit, result.best_concept[unit].astype(np.int64))


class Rows:
    """The rows of a `Verified`, as they are judged; skipped at first.

    Args:
      result: result of the layer.
      labels: its labelled units.
    """

    _NUMBERS = (
        *("auc", "auc_low", "auc_high", "shift", "shift_low", "shift_high"),
        *("control", "margin", "margin_low", "margin_high", "maximum"),
    )

    def __init__(self, result: Result, labels: Labels):
        self._result, self._labels = result, labels
        count = len(labels.unit)
        self._numbers: dict[str, Any] = {
            name: np.full(count, np.nan) for name in self._NUMBERS
        }
        self._counts: dict[str, Any] = {
            name: np.zeros(count, np.int64) for name in _COUNTED
        }
        self._way, self._note = [SKIPPED] * count, [""] * count

    def skip(self, rows: Places, why: str) -> None:
        """Says why units are not judged."""
        for row in rows:
            self._note[row] = why

    def set(self, rows: Places, way: str, images: int, **numbers: Any) -> None:
        """Sets numbers of rows: an AUC, or values with intervals by their name."""
        rows = list(rows)
        self._counts["images"][rows] = images
        for row in rows:
            self._way[row] = way
        for name, value in numbers.items():
            if name == "controls":
                self._counts[name][rows] = value
            elif isinstance(value, separation.Estimates):
                for end, one in zip(("", "_low", "_high"), value, strict=True):
                    self._numbers[name + end][rows] = one
            else:
                self._numbers[name][rows] = value

    def verified(self, result_hash: str) -> Verified:
        """Returns the rows."""
        result, (unit, column) = self._result, self._labels
        return Verified(
            result_hash=result_hash,
            layer=result.layer,
            iou_thresholds=tuple(result.iou_thresholds),
            unit=unit,
            name=tuple(str(result.unit_names[n]) for n in unit),
            concept=tuple(result.concepts[n] for n in column),
            category=tuple(result.categories[n] for n in column),
            iou=(result.intersection / np.maximum(result.union, 1))[unit, column],
            way=tuple(self._way),
            note=tuple(self._note),
            **self._counts,
            **self._numbers,
        )


_COUNTED = ("images", "controls")


def by_pairs(rows: Rows, of: Places, number: int, found: Responses, at: Places) -> bool:
    """Judges the units of a concept by pairs; returns whether there are enough.

    Args:
      rows: where the judgement goes.
      of: rows of the concept's units.
      number: the concept's number in the world.
      found: activations of the layer.
      at: positions of these units among those that were read for the concept.
    """
    pairs, controls = found.changed.get(number), found.controls.get(number)
    if pairs is None or controls is None or len(controls.pictures) < FEWEST:
        return False
    count = len(pairs.pictures)

    def auc(some: Pairs, what: int) -> Auc:
        place = np.searchsorted(pairs.pictures, some.pictures)
        both = some.with_it[:, what, at], some.without[:, what, at]
        return separation.of_pairs(*both, place, count)

    mean, control = auc(pairs, MEAN), auc(controls, MEAN)
    rows.set(
        of,
        way(number),
        count,
        auc=separation.interval(mean),
        shift=separation.shift(pairs.with_it[:, MEAN, at], pairs.without[:, MEAN, at]),
        maximum=auc(pairs, MAXIMUM).value,
        controls=len(controls.pictures),
        control=control.value,
        margin=separation.margin(mean, control),
    )
    return True


class Shown(NamedTuple):
    """Which concepts images show.

    Attributes:
      there: bool[image, concept], whether at least `LEAST` of the image's pixels show
        it.
      absent: bool[image, concept], whether none does, although it would be labelled.
      size: float64[concept], mean share of the pixels in the images that show it.
      categories: category of each concept.
    """

    there: Bool[np.ndarray, "image concept"]
    absent: Bool[np.ndarray, "image concept"]
    size: Float[np.ndarray, " concept"]
    categories: Sequence[str]


def shown_in_pictures(shares: Sequence[Float[np.ndarray, " number"]]) -> Shown:
    """Returns what pictures of the world show; `Counterfactuals.shares`."""
    share = np.array(list(shares)).reshape(-1, len(CONCEPTS))
    there = share >= LEAST
    size = np.where(there, share, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return Shown(there, share == 0, size, [category for _, category in CONCEPTS])


NO_CONTROL = "no other concept of the category in enough images"


class Contrast(NamedTuple):
    """AUCs of units on images with a concept against images without it.

    Attributes:
      auc: of the concept.
      images: number of images with it.
      control: of another concept; None if there is none.
      controls: number of images with that.
      why_not: why there is no AUC; '' if there is one.
    """

    auc: Auc | None
    images: int
    control: Auc | None = None
    controls: int = 0
    why_not: str = ""


def contrast(
    maximum: Float[np.ndarray, "image unit"],
    shown: Shown,
    concept: int,
    among: Bool[np.ndarray, " image"] | None = None,
) -> Contrast:
    """Compares the maxima of images with a concept with those of images without.

    The control is another concept of the category: images with it against images
    without it, none of which shows the concept itself. Of those in enough images, it is
    the one nearest in size.

    Args:
      maximum: maxima of the images, of the concept's units.
      shown: what the images show.
      concept: its column in `shown`.
      among: the images to use; by default all.
    """
    every = np.ones(len(maximum), bool) if among is None else among
    have = shown.there[:, concept] & every
    lack = shown.absent[:, concept] & every
    if have.sum() < FEWEST or lack.sum() < FEWEST:
        kind = "with" if have.sum() < FEWEST else "without"
        few = min(int(have.sum()), int(lack.sum()))
        return Contrast(None, int(have.sum()), why_not=f"{few} images {kind} it")

    def auc(one, other):
        numbers = np.flatnonzero(one), np.flatnonzero(other)
        return separation.auc(
            maximum[numbers[0]], maximum[numbers[1]], *numbers, len(maximum)
        )

    found = auc(have, lack)
    there, absent = shown.there & lack[:, None], shown.absent & lack[:, None]
    enough = (there.sum(axis=0) >= FEWEST) & (absent.sum(axis=0) >= FEWEST)
    enough &= np.array(shown.categories) == shown.categories[concept]
    enough[concept] = False
    if not enough.any():
        return Contrast(found, int(have.sum()))
    size = np.maximum(shown.size, 1e-9)
    far = np.abs(np.log(size / size[concept]))
    other = int(np.where(enough, far, np.inf).argmin())
    return Contrast(
        found,
        int(have.sum()),
        auc(there[:, other], absent[:, other]),
        int(there[:, other].sum()),
    )


def set_contrast(rows: Rows, of: Places, found: Contrast) -> None:
    """Judges units by images with and without their concept."""
    if found.auc is None:
        rows.skip(of, f"too few pairs, and only {found.why_not}")
        return
    rows.set(
        of,
        HELD_OUT,
        found.images,
        auc=separation.interval(found.auc),
        maximum=found.auc.value,
    )
    if found.control is None:
        rows.skip(of, NO_CONTROL)
        return
    rows.set(
        of,
        HELD_OUT,
        found.images,
        controls=found.controls,
        control=found.control.value,
        margin=separation.margin(found.auc, found.control),
    )
