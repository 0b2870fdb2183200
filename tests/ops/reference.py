"""Slow, plain NumPy versions to test the kernels against."""

import numpy as np


def upsample(features: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[..., h, w, unit] -> [..., H, W, unit], pixel by pixel, each step rounded."""
    features = np.asarray(features, np.float32)
    for axis, target in ((-2, shape[1]), (-3, shape[0])):
        features = _along(features, axis, target)
    return features


def _along(features, axis, target):
    features = np.moveaxis(features, axis, 0)
    size = len(features)
    if size == 1:
        out = np.repeat(features, target, axis=0)
        return np.moveaxis(out, 0, axis)
    rows = []
    for y in range(target):
        place = (y + 0.5) * size / target - 0.5
        low = int(np.floor(place))
        weight = np.float32(place - low)
        zero = np.zeros_like(features[0])
        a = features[low] if 0 <= low < size else zero
        b = features[low + 1] if 0 <= low + 1 < size else zero
        rows.append(a + (b - a) * weight if weight else a)
    return np.moveaxis(np.stack(rows), 0, axis)


def thresholds(pixels: np.ndarray, quantile: float) -> np.ndarray:
    """[pixel, unit] -> the smallest value v with #(a > v) <= floor(quantile * N)."""
    pixels = np.where(np.abs(pixels) < np.finfo(np.float32).tiny, 0, pixels)
    ordered = np.sort(pixels, axis=0)
    count = len(ordered)
    return ordered[count - 1 - int(np.floor(quantile * count))]
