"""Computes how well activations with a concept are told from those without.

The *AUC* of activations a with the concept and b without it is the share of all n x m
pairs with a > b, equal ones counting half: 0.5 for activations that do not depend on
the concept, 1 if all with it are above all without (Mann & Whitney, 1947).

Its error follows from how much each image contributes (DeLong et al., Biometrics
1988): with V_i the share of the b below a_i, and U_j the share of the a above b_j,
image i adds (V_i - AUC) / n, and image j adds (U_j - AUC) / m. The variance of the AUC
is the sum of the squared contributions by image. An image with and without the concept
contributes both ways (Obuchowski, Biometrics 1997), so intervals are of pairs; and a
difference of two AUCs on the same images has the difference of the contributions.

Intervals are Student's t with one degree of freedom less than there are images.
"""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from jdissect.analysis.uncertainty import CONFIDENCE


class Auc(NamedTuple):
    """AUCs of units.

    Attributes:
      value: float64[unit], in [0, 1].
      contribution: float64[image, unit], of each image to the AUC's error; sums to 0.
    """

    value: Float[np.ndarray, " unit"]
    contribution: Float[np.ndarray, "image unit"]


class Estimates(NamedTuple):
    """Values of units with 95 % intervals; float64[unit] each."""

    value: Float[np.ndarray, " unit"]
    low: Float[np.ndarray, " unit"]
    high: Float[np.ndarray, " unit"]


def auc(
    with_it: Float[np.ndarray, "with unit"],
    without: Float[np.ndarray, "without unit"],
    images_with: Int[np.ndarray, " with"],
    images_without: Int[np.ndarray, " without"],
    images: int,
) -> Auc:
    """Returns each unit's AUC.

    Args:
      with_it, without: activations with and without the concept, at least one each.
      images_with, images_without: the image of each row; an image may be in both.
      images: number of images.
    """
    n, m, units = len(with_it), len(without), with_it.shape[1]
    contribution = np.zeros((images, units))
    value = np.empty(units)
    for unit in range(units):
        a, b = with_it[:, unit], without[:, unit]
        below = _share_below(np.sort(b), a)
        above = 1 - _share_below(np.sort(a), b)
        value[unit] = below.mean()
        np.add.at(contribution[:, unit], images_with, (below - value[unit]) / n)
        np.add.at(contribution[:, unit], images_without, (above - value[unit]) / m)
    return Auc(value, contribution)


def of_pairs(
    with_it: Float[np.ndarray, "pair unit"],
    without: Float[np.ndarray, "pair unit"],
    images: Int[np.ndarray, " pair"],
    count: int,
) -> Auc:
    """Returns each unit's AUC over pairs of one image each; see `auc`."""
    return auc(with_it, without, images, images, count)


def error(found: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, " unit"]:
    """Returns the variance of values to which images contribute."""
    images = len(found)
    return (found**2).sum(axis=0) * images / max(images - 1, 1)


def estimates(
    value: Float[np.ndarray, " unit"], variance: Float[np.ndarray, " unit"], images: int
) -> Estimates:
    """Returns values with intervals: at least half an image to each side."""
    half = np.maximum(_quantile(images) * np.sqrt(variance), 0.5 / images)
    return Estimates(value, value - half, value + half)


def interval(found: Auc) -> Estimates:
    """Returns AUCs with their intervals, inside [0, 1]."""
    images = len(found.contribution)
    return inside(estimates(found.value, error(found.contribution), images))


def inside(found: Estimates) -> Estimates:
    """Cuts intervals to [0, 1]."""
    return found._replace(low=np.maximum(found.low, 0), high=np.minimum(found.high, 1))


def margin(first: Auc, second: Auc) -> Estimates:
    """Returns how much the first AUCs exceed the second, on the same images."""
    value = first.value - second.value
    images = len(first.contribution)
    return estimates(value, error(first.contribution - second.contribution), images)


def shift(
    with_it: Float[np.ndarray, "pair unit"], without: Float[np.ndarray, "pair unit"]
) -> Estimates:
    """Returns the mean difference of pairs in standard deviations of the activations.

    The deviation is the root of the mean of both variances, with and without; 0 for a
    unit whose activations are all equal.
    """
    pairs = len(with_it)
    difference = with_it.astype(np.float64) - without
    both = [each.astype(np.float64).var(axis=0, ddof=1) for each in (with_it, without)]
    scale = np.sqrt((both[0] + both[1]) / 2)
    scale = np.where(scale > 0, scale, np.inf)
    value = difference.mean(axis=0) / scale
    half = _quantile(pairs) * difference.std(axis=0, ddof=1) / np.sqrt(pairs) / scale
    return Estimates(value, value - half, value + half)


def _share_below(ordered, values):
    """Returns the share of ordered numbers below each value; equal ones count half."""
    ends = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return sum(ends) / (2 * len(ordered))


def _quantile(count: int) -> float:
    return float(scipy.special.stdtrit(max(count - 1, 1), (1 + CONFIDENCE) / 2))
