"""Augments training batches: standard augmentation, then a mixing recipe.

Pure functions of explicit keys, to be called inside a jitted step: the same key gives
the same batch.
"""

from jdissect.augment.mix import RECIPES, Mixture, mix
from jdissect.augment.standard import (
    color_jitter,
    horizontal_flip,
    pca_lighting,
    random_resized_crop,
    standard,
)

__all__ = [
    "RECIPES",
    "Mixture",
    "color_jitter",
    "horizontal_flip",
    "mix",
    "pca_lighting",
    "random_resized_crop",
    "standard",
]
