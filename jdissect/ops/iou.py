"""Counts the exact intersections of all units with all concepts.

Masks and label planes are bits in 32-pixel words (see `ops.bit_masks`), so an
intersection is an `and` and a population count per word (see `mask_overlap`). Only the
concepts in an image are visited, in chunks. A pixel may carry several labels, at most
one per map; it belongs to a concept if any map shows the concept.

Counts are kept per group of images, as error bars need them: per block, or per image.

Rule of the 2017 code for human annotations: an image counts for a concept, also in the
union, only if it is annotated in the concept's category.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks, float_keys, mask_overlap
from jdissect.ops.refine import listed

_CONCEPTS = 16  # concepts per round


class Counts(NamedTuple):
    """Running integers; merged by addition.

    Attributes:
      intersection: int32[group, concept, unit], pixels of the concept where the unit
        fires; the last concept is a dummy.
      concept: int32[group, concept], pixels of each concept; the last is a dummy.
      unit: int32[group, category, unit], pixels where the unit fires, over the images
        that count for each category; the last category is over all images.
    """

    intersection: Int[AnyArray, "group concept unit"]
    concept: Int[AnyArray, "group concept"]
    unit: Int[AnyArray, "group category unit"]


def empty(groups: int, concepts: int, categories: int, units: int) -> Counts:
    """Returns counts of zero."""
    return Counts(
        jnp.zeros((groups, concepts + 1, units), jnp.int32),
        jnp.zeros((groups, concepts + 1), jnp.int32),
        jnp.zeros((groups, categories + 1, units), jnp.int32),
    )


def update(
    counts: Counts,
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    labels: Int[AnyArray, "image map mask_height mask_width"],
    annotated: Bool[AnyArray, "image category"],
    group: Int[AnyArray, " image"],
    cuts: Float[AnyArray, " unit"],
    category: Int[AnyArray, " concept"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
) -> Counts:
    """Adds images to the counts.

    Args:
      counts: the counts so far.
      features: feature maps of any float type.
      valid: images that count.
      labels: int32, 0 for no concept, else column + 1.
      annotated: whether each image counts for each category.
      group: int32, group of each image.
      cuts: float32, `float_keys.cuts` of T_k; a unit fires where its activation is
        above.
      category: int32, category of each column.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
    """
    concepts = category.shape[0]
    # Row 0 means "no concept"; the ends of chunks point past the last concept.
    category = jnp.concatenate([jnp.zeros(1, jnp.int32), category])
    number = jnp.int16 if concepts < np.iinfo(np.int16).max else jnp.int32

    def fires(values, cuts):
        return values > cuts

    def one_image(counts, image):
        features, valid, labels, annotated, group = image
        features = float_keys.canonical(features)
        masks = bit_masks.pack(fires, features, cuts, geometry, zero)
        masks = jnp.where(valid, masks, 0)
        counted = (labels > 0) & annotated[category[labels]] & valid
        labels = jnp.where(counted, labels, 0)
        present = jnp.zeros((concepts + 1,), bool).at[labels.reshape(-1)].set(True)
        columns, total = listed(present[1:])
        columns = jnp.pad(columns, (0, -concepts % _CONCEPTS))
        labels = bit_masks.by_block(labels.astype(number))

        def body(state):
            first, intersection, areas = state
            here = jax.lax.dynamic_slice(columns, (first,), (_CONCEPTS,))
            order_ = first + jnp.arange(_CONCEPTS, dtype=jnp.int32)
            here = jnp.where(order_ < total, here, concepts)
            there = labels == (here + 1).astype(number)[:, None, None, None]
            planes = bit_masks.pack_bits(there.any(axis=1))
            area = jax.lax.population_count(planes).sum(axis=1, dtype=jnp.int32)
            common = mask_overlap.product(planes, masks)
            intersection = intersection.at[group, here].add(
                common, mode="drop", indices_are_sorted=True
            )
            return first + _CONCEPTS, intersection, areas.at[group, here].add(area)

        start = (jnp.zeros((), jnp.int32), counts.intersection, counts.concept)
        _, intersection, areas = jax.lax.while_loop(
            lambda state: state[0] < total, body, start
        )
        fired = jax.lax.population_count(masks).sum(axis=0, dtype=jnp.int32)
        everywhere = jnp.append(annotated, True).astype(jnp.int32)
        unit = counts.unit.at[group].add(everywhere[:, None] * fired)
        return Counts(intersection, areas, unit), None

    images = (features, valid, labels, annotated, group)
    return jax.lax.scan(one_image, counts, images)[0]


def join(parts: list[Counts], units: int) -> Counts:
    """Joins counts of disjoint units on the same images into counts of all units."""
    intersection, unit = (
        np.concatenate([getattr(part, name) for part in parts], axis=-1)[..., :units]
        for name in ("intersection", "unit")
    )
    return Counts(intersection, parts[0].concept, unit)


class Overlap(NamedTuple):
    """Pixel counts of units and concepts over all images.

    Attributes:
      intersection: pixels that a unit and a concept share.
      union: pixels of either, on the images that count for the concept's category.
      fires: pixels where a unit fires, on all images.
    """

    intersection: Int[np.ndarray, "unit concept"]
    union: Int[np.ndarray, "unit concept"]
    fires: Int[np.ndarray, " unit"]


def result(counts: Counts, category: Int[np.ndarray, " concept"]) -> Overlap:
    """Returns the counts over all groups, in int64."""
    intersection, concept, unit = (
        np.asarray(array).sum(axis=0, dtype=np.int64) for array in counts
    )
    return of_totals(intersection[:-1].T, concept[:-1], unit, category)


def of_totals(
    intersection: Int[np.ndarray, "unit concept"],
    concept: Int[np.ndarray, " concept"],
    unit: Int[np.ndarray, "category unit"],
    category: Int[np.ndarray, " concept"],
) -> Overlap:
    """Returns the overlap from int64 counts over all groups.

    Args:
      intersection: pixels that a unit and a concept share.
      concept: pixels of each concept.
      unit: pixels where each unit fires, by category as in `Counts`.
      category: category of each concept.
    """
    union = unit[category].T + concept - intersection
    return Overlap(
        np.ascontiguousarray(intersection), np.ascontiguousarray(union), unit[-1]
    )
