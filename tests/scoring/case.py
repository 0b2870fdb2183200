"""A small layer with hard cases, counted by hand, and its dense arrays."""

import functools
from typing import NamedTuple

import numpy as np

from jdissect.ops.upsample import upsample
from jdissect.results import group_counts
from jdissect.results.layer_result import Result
from jdissect.scoring.samples import Batch, Vocabulary

CONCEPTS = [
    ("-", "-"),
    ("cat", "object"),
    ("-", "part"),
    ("red", "color"),
    ("tail", "part"),
    ("cat", "object"),  # the same concept by another number
    ("nowhere", "color"),
    ("everywhere", "scene"),
]
NAMES = ("cat", "red", "tail", "nowhere", "everywhere")
CATEGORY = np.array([0, 1, 2, 1, 3])
SHAPE = (12, 10)
GRID = (4, 5)


class Case(NamedTuple):
    """Attributes:
    result: the layer's result.
    pixels: float64[image, H, W, unit], upsampled, of the images that can be read.
    fires: bool[image, H, W, unit].
    masks: bool[image, H, W, concept], also on images that do not count.
    counts: bool[image, concept], whether the image counts for the concept.
    batch: the same as `Batch`.
    """

    result: object
    pixels: np.ndarray
    fires: np.ndarray
    masks: np.ndarray
    counts: np.ndarray
    batch: Batch

    def flat(self, array, concept):
        """Pixels of the images that count for a concept, in one axis."""
        here = array[self.counts[:, concept]]
        return here.reshape(-1, array.shape[-1])


def drawn(seed, grid=GRID, images=24):
    """(features, labels, annotated, valid)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, *grid, 8)).astype(np.float32)
    labels = rng.choice([0] * 12 + [1, 2, 3, 4, 5], (images, 2, *SHAPE))
    labels[:, 0, :5, :4] = 1
    labels[::2, 0] = 0
    labels = np.concatenate([labels, np.full((images, 1, *SHAPE), 7)], axis=1)
    height, width = -(-grid[0] * 5 // 12), -(-grid[1] * 4 // 10)
    features[1::2, :height, :width, 0] += 6  # detects the cat
    features[..., 1] = np.maximum(features[..., 1], 0)  # many zeros
    features[..., 2] = np.round(features[..., 2])  # ties
    features[..., 3] = 0  # never fires
    features[..., 4] = np.exp(3 * features[..., 4])  # a long tail
    features[..., 5] = 2.5  # constant, before the border is padded
    features[..., 6] *= -1e-12
    features[..., 7] = -np.abs(features[..., 7])
    annotated = rng.random((images, 4)) < 0.8
    annotated[:, 3] = True
    valid = np.ones(images, bool)
    valid[[3, 20]] = False
    return features, labels, annotated, valid


@functools.cache
def make(seed=0, grid=GRID) -> Case:
    features, labels, annotated, valid = drawn(seed, grid)
    pixels = np.asarray(upsample(features[valid], SHAPE))
    every = pixels.reshape(-1, pixels.shape[-1])
    thresholds = np.quantile(every, 0.95, axis=0, method="higher").astype(np.float32)
    fires = pixels > thresholds
    numbers = [[1, 5], [3], [4], [6], [7]]
    masks = np.stack(
        [np.isin(labels[valid], some).any(axis=1) for some in numbers], axis=-1
    )
    batch = Vocabulary(CONCEPTS).batch(features[valid], labels[valid], annotated[valid])
    counts = annotated[valid][:, CATEGORY]
    return Case(
        _result(every, thresholds, fires, masks, annotated[valid]),
        pixels.astype(np.float64),
        fires,
        masks,
        counts,
        batch,
    )


def _result(every, thresholds, fires, masks, annotated):
    """The layer's result, counted from the dense masks."""
    counts = annotated[:, CATEGORY]
    counted = masks & counts[:, None, None]
    common = np.einsum("nhwc,nhwu->ncu", counted * 1, fires * 1)
    area = counted.sum(axis=(1, 2))
    in_image = fires.sum(axis=(1, 2))
    unit = np.concatenate(
        [annotated[:, :, None] * in_image[:, None], in_image[:, None]], axis=1
    )
    by_image = group_counts.GroupedCounts.pack(common, area, unit, CATEGORY)
    intersection = common.sum(axis=0).T
    edges = np.quantile(every, np.linspace(0, 1, 42), axis=0).astype(np.float32).T
    units, images = len(thresholds), len(fires)
    names = ["object", "color", "part", "scene"]
    return Result(
        thresholds=thresholds,
        intersection=np.ascontiguousarray(intersection),
        union=unit.sum(axis=0)[CATEGORY].T + area.sum(axis=0) - intersection,
        fires=in_image.sum(axis=0),
        concepts=NAMES,
        categories=tuple(names[place] for place in CATEGORY),
        top_value=np.zeros((units, 1), np.float32),
        top_image=np.zeros((units, 1), np.int32),
        histogram_counts=np.full((units, 41), len(every) // 41),
        histogram_edges=edges,
        images=images,
        quantile=0.05,
        layer="maps",
        mask_shape=SHAPE,
        blocks=by_image.merged(np.arange(images) % 32, 32),
        by_image=by_image,
        category_images=dict(zip(names, annotated.sum(axis=0).tolist(), strict=True)),
    )
