"""Draws small images with masks and label maps, dense and as a replay gives them."""

from typing import NamedTuple

import numpy as np

from jdissect.results import group_counts
from jdissect.results.group_counts import BLOCKS
from jdissect.results.layer_result import Result

UNITS, CONCEPTS, CATEGORIES = 5, 7, 3
CATEGORY = np.array([0, 0, 1, 1, 2, 2, 0])


class OnImage(NamedTuple):
    """As `dissection.firing.OnImage`."""

    index: int
    columns: np.ndarray
    annotated: np.ndarray
    unit: np.ndarray
    pixel: np.ndarray


class Dense(NamedTuple):
    """All images: masks [image, unit, y, x], labels [image, map, y, x], flags."""

    masks: np.ndarray
    labels: np.ndarray
    annotated: np.ndarray

    def images(self):
        for index, (mask, labels, annotated) in enumerate(zip(*self, strict=True)):
            unit, pixel = np.nonzero(mask.reshape(len(mask), -1))
            yield OnImage(
                index, labels, annotated, unit.astype("i4"), pixel.astype("i4")
            )


def dense(seed: int, images: int = 9, shape=(6, 11), all_annotated=False) -> Dense:
    """Random images; the grid is no multiple of a block of 4x8 pixels."""
    rng = np.random.default_rng(seed)
    masks = rng.random((images, UNITS, *shape)) < rng.uniform(
        0, 0.4, (images, UNITS, 1, 1)
    )
    masks[:, -1] = False  # a unit that never fires
    labels = rng.integers(0, CONCEPTS, (images, 2, *shape)).astype(np.int16)
    labels[rng.random(labels.shape) < 0.3] = 0
    annotated = rng.random((images, CATEGORIES)) < (2 if all_annotated else 0.6)
    category = np.append(0, CATEGORY)
    counted = np.stack([a[category[m]] for a, m in zip(annotated, labels, strict=True)])
    return Dense(masks, np.where(counted, labels, 0).astype(np.int16), annotated)


def iou(found: Dense, permutation) -> np.ndarray:
    """IoU [unit, concept] of masks with other images' label maps, by brute force."""
    labels, annotated = found.labels[permutation], found.annotated[permutation]
    result = np.zeros((found.masks.shape[1], CONCEPTS))
    for unit in range(found.masks.shape[1]):
        for concept in range(CONCEPTS):
            counted = annotated[:, CATEGORY[concept]]
            fires = found.masks[counted, unit]
            there = (labels[counted] == concept + 1).any(axis=1)
            either = (fires | there).sum()
            result[unit, concept] = (fires & there).sum() / max(either, 1)
    return result


NAMES = tuple(f"thing {number}" for number in range(CONCEPTS - 1)) + ("=SUM(1)",)
NAMES_OF_CATEGORIES = ("object", "part", "color")


def result(found: Dense) -> Result:
    """The result that a dissection has for these masks."""
    images = len(found.masks)
    blocks = group_counts.blocks_of([str(number) for number in range(images)])
    intersection = np.zeros((BLOCKS, CONCEPTS, UNITS), np.int64)
    area = np.zeros((BLOCKS, CONCEPTS), np.int64)
    fires = np.zeros((BLOCKS, CATEGORIES + 1, UNITS), np.int64)
    for block, mask, labels, annotated in zip(blocks, *found, strict=True):
        fires[block] += np.append(annotated, True)[:, None] * mask.sum(axis=(1, 2))
        for concept in range(CONCEPTS):
            there = (labels == concept + 1).any(axis=0)
            area[block, concept] += there.sum()
            intersection[block, concept] += (mask & there).sum(axis=(1, 2))
    total, unit = intersection.sum(axis=0).T, fires.sum(axis=0)
    return Result(
        thresholds=np.zeros(UNITS, np.float32),
        intersection=np.ascontiguousarray(total),
        union=unit[CATEGORY].T + area.sum(axis=0) - total,
        fires=unit[-1],
        concepts=NAMES,
        categories=tuple(NAMES_OF_CATEGORIES[number] for number in CATEGORY),
        top_value=np.zeros((UNITS, 1), np.float32),
        top_image=np.zeros((UNITS, 1), np.int32),
        histogram_counts=np.ones((UNITS, 2), np.int64),
        histogram_edges=np.tile(np.arange(3, dtype=np.float32), (UNITS, 1)),
        images=images,
        quantile=0.25,
        layer="layer4",
        mask_shape=found.masks.shape[2:],
        blocks=group_counts.GroupedCounts.pack(intersection, area, fires, CATEGORY),
    )
