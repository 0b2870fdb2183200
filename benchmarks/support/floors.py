"""The work that no program for a stage can avoid, an image.

Formulas (U units, h x w the feature grid, P the pixels of the mask grid, M maps of
labels, C concepts in an image, all float32 or int32, 4 bytes):

- networks: the products of the form that runs here, as `count` counts them;
  weights once a batch, images and results once. Biases, ReLUs and what lies between
  layers could stay in registers and caches, and are left out.
- upsampling, 3 operations a pixel (a difference, a product, a sum) along y, and along x
  for the h + 2 padded rows.
- sketch: upsampling, a comparison and an addition a pixel and edge, of 8 bits: a fourth
  of an operation each, as a vector holds four times as many; the features once.
- sweep: upsampling, 2 comparisons, and what makes a bit of them, a pixel; the features
  once. The few marked pixels are left out.
- intersections: upsampling, a comparison and what makes a bit of it, a pixel; for a
  concept and a word of 32 pixels that it is in (one in seven) an and, a population
  count and an addition; a comparison and what makes a bit of it for a concept, map and
  pixel; features and labels once, and the counters of C U pairs read and written.
- top-k: a comparison an activation; the features once.
- label maps: a comparison for each object's, material's and slot's score of a pixel; of
  a pixel with half of its neighbours, for components; the scores once, the maps once.
"""

import math
from typing import Any

import jax

from benchmarks.support.count import Count, count
from benchmarks.support.steps import WORDS, Shapes, Step
from jdissect.ops.edges import EDGES


def network(step: Step, images: int) -> Count:
    """Of a network that runs on so many images at once."""
    found = count(step.function, *step.arguments)
    results = jax.eval_shape(step.function, *step.arguments)
    params, pixels = step.arguments
    bytes_ = (_bytes(params) + _bytes(pixels) + _bytes(results)) / images
    return Count(found.products / images, 0, bytes_)


def upsampling(shapes: Shapes) -> float:
    """Operations an image."""
    along_y = shapes.mask**2
    along_x = (shapes.grid + 2) * shapes.mask
    return 3.0 * (along_x + along_y) * shapes.units


def topk(shapes: Shapes) -> Count:
    """Of the images of highest activation."""
    return Count(0, shapes.grid**2 * shapes.units, _features(shapes))


def sketch(shapes: Shapes) -> Count:
    """Of the sketch."""
    counted = 2.0 / 4 * EDGES * shapes.mask**2 * shapes.units
    return Count(0, upsampling(shapes) + counted, _features(shapes))


def sweep(shapes: Shapes) -> Count:
    """Of a sweep over all units."""
    marked = 3.0 * shapes.mask**2 * shapes.units
    return Count(0, upsampling(shapes) + marked, _features(shapes))


def intersections(shapes: Shapes) -> Count:
    """Of the intersections with the concepts that are present."""
    pixels, pairs = shapes.mask**2, shapes.present * shapes.units
    masks = 2.0 * pixels * shapes.units
    planes = 2.0 * pixels * shapes.maps * shapes.present
    common = 3.0 * math.ceil(pixels / 32) * WORDS * pairs
    bytes_ = _features(shapes) + 4 * shapes.maps * pixels + 8 * pairs
    return Count(0, upsampling(shapes) + masks + planes + common, bytes_)


def label_maps(scores: dict[str, Any], slots: int, maps: int) -> Count:
    """Of an image's label maps from its scores.

    Args:
      scores: {'object', 'part', 'material': [1, height, width, channels]}.
      slots: parts of the object that has most.
      maps: number of label maps of the result, in 16 bits.
    """
    _, height, width, _ = scores["object"].shape
    channels = sum(scores[name].shape[-1] for name in ("object", "material")) + slots
    pixels = height * width
    read = 4.0 * pixels * channels
    return Count(0, pixels * (channels + 4.0), read + 2 * maps * pixels)


def _features(shapes: Shapes) -> float:
    return 4.0 * shapes.grid**2 * shapes.units


def _bytes(tree: Any) -> float:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
