"""A small layer's result, with seven units of known IoU, for what is drawn of it."""

import dataclasses

import numpy as np

from jdissect.results import layer_result

CONCEPTS = (
    *(("car", "object"), ("$ky_1", "object"), ("wheel", "part")),
    *(("red", "color"), ("wood", "material")),
)
IOU = (  # of 100
    *((30, 0, 0, 0, 0), (25, 0, 0, 0, 0), (0, 20, 0, 0, 0), (0, 0, 11, 0, 0)),
    *((0, 0, 0, 9, 0), (0, 0, 0, 0, 4), (0, 0, 0, 0, 0)),
)


def make_result(**changes):
    rng = np.random.default_rng(5)
    iou = np.array(IOU)
    result = layer_result.Result(
        thresholds=np.linspace(0.4, 0.9, 7).astype(np.float32),
        intersection=iou.astype(np.int64),
        union=np.full(iou.shape, 100, np.int64),
        fires=np.full(7, 50, np.int64),
        concepts=tuple(name for name, _ in CONCEPTS),
        categories=tuple(category for _, category in CONCEPTS),
        top_value=np.ones((7, 2), np.float32),
        top_image=np.array([[n % 3, (n + 1) % 3] for n in range(7)], np.int32),
        histogram_counts=np.ones((7, 4), np.int64),
        histogram_edges=np.ones((7, 5), np.float32),
        images=3,
        quantile=0.01,
        model="resnet50",
        layer="layer4",
        mask_shape=(20, 20),
        top_map=rng.random((7, 2, 5, 4), np.float32) * 1.4,
    )
    return dataclasses.replace(result, **changes)
