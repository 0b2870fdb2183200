"""Sums over pixels of which Pearson's correlation and the cosine are made.

With a the upsampled activation of a unit and m a concept's mask of zeros and ones, over
the N pixels of the images that count for the concept's category:

    pearson = (N sum a m - sum a sum m) / sqrt((N sum a^2 - (sum a)^2) (N C - C^2))
    cosine  = sum a m / sqrt(sum a^2 C)                    C = sum m = sum m^2

(`correlation` and `cos_sim` of `metrics.py` in Trustworthy-ML-Lab/Neuron_Eval.)

Upsampling is linear, a = U x for a feature map x, so sum a m = x . (U^T m): masks are
pulled back to the feature grid, where there are a hundred times fewer points, and sum
a^2 = x . (U^T U) x. No map is upsampled.

**Fixed point.** Activations are rounded to multiples of a power of two, one for each
unit. The weights of U are multiples of 1 / (2 H) and 1 / (2 W) on a mask grid of H x W.
So an image's products are integers below 2^53, which a product of float64 matrices
gives exactly, in any order. What an image adds is rounded once more and summed in
int64: sums of any images merge to the same bits, on any layout. `Moments.error` bounds
what the rounding changes.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jdissect.ops.upsample import Axis, plan_axis
from jdissect.scoring.samples import Batch, planes

_EXACT = 53  # bits of a float64
_WIDE = 62  # bits of a sum in int64


class Sums(NamedTuple):
    """Integer sums; merged by addition. The last category is over all images.

    Attributes:
      product: int64[concept, unit], sum a m in units of the unit's step.
      total: int64[category, unit], sum a in units of the step.
      square: int64[category, unit], sum a^2 in units of the unit's `square_step`.
      concept: int64[concept], pixels of each concept.
      concept_images: int64[concept], images with the concept.
      images: int64[category], images that count for each category.
    """

    product: Int[np.ndarray, "concept unit"]
    total: Int[np.ndarray, "category unit"]
    square: Int[np.ndarray, "category unit"]
    concept: Int[np.ndarray, " concept"]
    concept_images: Int[np.ndarray, " concept"]
    images: Int[np.ndarray, " category"]

    def merged(self, other: "Sums") -> "Sums":
        """Returns the sums over the images of both."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


@dataclasses.dataclass(frozen=True)
class Pulled:
    """One axis of the upsampling, in whole numbers.

    Attributes:
      matrix: float64[grid, pixel], weights of U times `scale`, whole numbers.
      gram: float64[grid, grid], U^T U.
      scale: the weights' common denominator.
    """

    matrix: Float[np.ndarray, "grid pixel"]
    gram: Float[np.ndarray, "grid grid"]
    scale: int


@functools.cache
def pulled(axis: Axis) -> Pulled:
    """Returns the whole-number weights of an axis."""
    scale = 2 * axis.target if axis.pad else 1
    numerator = np.rint(axis.weight.astype(np.float64) * scale)
    whole = np.zeros((axis.size + 2 * axis.pad, axis.target))
    pixel = np.arange(axis.target)
    np.add.at(whole, (axis.low, pixel), scale - numerator)
    np.add.at(whole, (axis.high, pixel), numerator)
    # The zeros around the grid contribute nothing.
    matrix = whole[axis.pad : axis.pad + axis.size]
    return Pulled(matrix, matrix @ matrix.T / scale**2, scale)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums the products of activations and masks.

    Attributes:
      grid: (height, width) of the feature maps.
      mask_shape: (height, width) of the masks.
      category: int[concept], category of each concept.
      categories: number of categories.
      largest: float[unit], the largest magnitude of each unit's activations, or more.
      images: largest number of images that will be summed.
    """

    grid: tuple[int, int]
    mask_shape: tuple[int, int]
    category: Int[np.ndarray, " concept"]
    categories: int
    largest: Float[np.ndarray, " unit"]
    images: int

    @functools.cached_property
    def _axes(self) -> tuple[Pulled, Pulled]:
        rows, columns = zip(self.grid, self.mask_shape, strict=True)
        return pulled(plan_axis(*rows)), pulled(plan_axis(*columns))

    @property
    def _pixels(self) -> int:
        """Pixels of an image."""
        return self.mask_shape[0] * self.mask_shape[1]

    @property
    def _scale(self) -> int:
        """Denominator of the products."""
        return self._axes[0].scale * self._axes[1].scale

    @functools.cached_property
    def bits(self) -> int:
        """Bits of a rounded activation."""
        in_image = math.ceil(math.log2(self._pixels * self._scale))
        in_all = math.ceil(math.log2(self._pixels * max(self.images, 1)))
        return min(_EXACT - 1 - in_image, _WIDE - in_all)

    @functools.cached_property
    def _exponent(self) -> Int[np.ndarray, " unit"]:
        """The least e with every magnitude at most 2^e."""
        mantissa, exponent = np.frexp(np.asarray(self.largest, np.float64))
        return np.where(mantissa == 0, 0, exponent - (mantissa == 0.5))

    @property
    def step(self) -> Float[np.ndarray, " unit"]:
        """What one unit of `Sums.product` and `Sums.total` is worth."""
        return np.ldexp(1.0, self._exponent - self.bits)

    @property
    def square_step(self) -> Float[np.ndarray, " unit"]:
        """What one unit of `Sums.square` is worth."""
        in_all = math.ceil(math.log2(self._pixels * max(self.images, 1)))
        return np.ldexp(1.0, 2 * self._exponent - (_WIDE - in_all))

    def empty(self) -> Sums:
        """Returns sums of no images."""
        units, concepts = len(self.largest), len(self.category)
        by_category = (self.categories + 1, units)
        return Sums(
            np.zeros((concepts, units), np.int64),
            np.zeros(by_category, np.int64),
            np.zeros(by_category, np.int64),
            np.zeros(concepts, np.int64),
            np.zeros(concepts, np.int64),
            np.zeros(self.categories + 1, np.int64),
        )

    def add(self, sums: Sums, batch: Batch) -> None:
        """Adds images to sums, in place."""
        for image in zip(*batch, strict=True):
            self._add(sums, *image)

    def _add(self, sums, features, columns, annotated) -> None:
        rows, across = self._axes
        present, at = planes(columns)
        every = np.concatenate([at, np.ones((1, *self.mask_shape), bool)])
        back = rows.matrix @ every.astype(np.float64) @ across.matrix.T
        whole = np.rint(features.astype(np.float64) / self.step)
        if np.abs(whole).max(initial=0) > 2.0**self.bits:
            raise ValueError("an activation exceeds `largest`")
        units = whole.shape[-1]
        product = back.reshape(len(every), -1) @ whole.reshape(-1, units)
        product = np.rint(product / self._scale).astype(np.int64)
        sums.product[present] += product[:-1]
        sums.concept[present] += at.sum(axis=(1, 2))
        sums.concept_images[present] += 1
        # The order of these sums is fixed by the image's shape alone.
        values = whole * (self.step / np.sqrt(self.square_step))
        square = (_along(_along(values, rows.gram, 0), across.gram, 1) * values).sum(
            axis=(0, 1)
        )
        counted = np.append(annotated, True)
        sums.total[counted] += product[-1]
        sums.square[counted] += np.rint(square).astype(np.int64)
        sums.images[counted] += 1

    def pearson(self, sums: Sums) -> Float[np.ndarray, "unit concept"]:
        """Returns Pearson's correlation, float64; 0 where a deviation is 0."""
        pixels, share, mean, variance = self._of_categories(sums)
        product = sums.product.T * self.step[:, None] / pixels
        covariance = product - mean * share
        deviation = np.sqrt(variance * share * (1 - share))
        # A smaller deviation is due to rounding.
        real = (variance > self._least) & (share > 0) & (share < 1)
        return np.where(
            real, np.clip(covariance / np.where(real, deviation, 1), -1, 1), 0.0
        )

    def cosine(self, sums: Sums) -> Float[np.ndarray, "unit concept"]:
        """Returns the cosine, float64; 0 where a vector is 0."""
        pixels, share, mean, variance = self._of_categories(sums)
        length = np.sqrt((variance + mean**2) * share)
        product = sums.product.T * self.step[:, None] / pixels
        real = length > 0
        return np.where(real, np.clip(product / np.where(real, length, 1), -1, 1), 0.0)

    def error(self, sums: Sums) -> float:
        """Returns a bound on what fixed point changes in any Pearson or cosine.

        Every activation is off by at most half a step, d, and upsampling never
        increases that. So the covariance is off by d times the mask's deviation, and
        the unit's deviation s by d: together at most 2 d / s. Rounding an image's
        product, and its square, adds the other terms.
        """
        pixels, share, mean, variance = self._of_categories(sums)
        images = sums.images[self.category]
        half = self.step[:, None] / 2
        real = (variance > self._least) & (share > 0) & (share < 1)
        deviation = np.sqrt(np.where(real, variance, 1))
        spread = np.sqrt(np.where(real, share * (1 - share), 1))
        rounded = (sums.concept_images + share * images) / pixels * half / spread
        found = 2 * half / deviation + rounded / deviation
        found += self._least / deviation**2
        return float(np.where(real, found, 0).max(initial=0))

    @property
    def _least(self) -> Float[np.ndarray, "unit one"]:
        """A bound on what rounding changes in a variance, by itself."""
        largest = np.ldexp(1.0, self._exponent)[:, None]
        images = 1 / self._pixels
        return (
            self.square_step[:, None] * images
            + self.step[:, None] * largest * images
            + 2.0**-45 * largest**2
        )

    def _of_categories(self, sums: Sums):
        """Returns (pixels, share of the concept, unit's mean, its variance) by pair."""
        pixels = np.maximum(sums.images[self.category] * self._pixels, 1)
        share = sums.concept / pixels
        mean = (sums.total[self.category] * self.step).T / pixels
        square = (sums.square[self.category] * self.square_step).T / pixels
        return pixels, share, mean, np.maximum(square - mean**2, 0)


def _along(values, gram, axis):
    """Multiplies a banded matrix along an axis, in a fixed order."""
    moved = np.moveaxis(values, axis, 0)
    found = gram.diagonal().reshape(-1, *[1] * (moved.ndim - 1)) * moved
    for distance in range(1, len(gram)):
        band = gram.diagonal(distance).reshape(-1, *[1] * (moved.ndim - 1))
        if not band.any():
            continue
        found[:-distance] += band * moved[distance:]
        found[distance:] += band * moved[:-distance]
    return np.moveaxis(found, 0, axis)
