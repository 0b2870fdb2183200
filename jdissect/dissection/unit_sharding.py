"""Shards units over devices: the host side of `config.mesh.unit`.

The devices of a pass form a grid of `rows` x `parts`, in row-major order. Images are
sharded over the rows, units over the parts; missing units are padded with zeros.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdissect.runtime.devices import on_accelerator


def over_grid(maps: Any, rows: int, parts: int) -> Any:
    """Shards [image, height, width, unit] to [device x image, height, width, unit].

    Args:
      maps: feature maps; `rows` divides the number of images.
    """
    if parts == 1:
        return maps
    maps = _padded(maps if on_accelerator(maps) else np.asarray(maps), parts)
    maps = maps.reshape(rows, -1, *maps.shape[1:3], parts, maps.shape[-1] // parts)
    maps = maps.transpose(0, 4, 1, 2, 3, 5)
    return maps.reshape(-1, *maps.shape[3:])


def repeated(array: np.ndarray, rows: int, parts: int) -> np.ndarray:
    """Repeats per-image data for every device of the images' row."""
    if parts == 1:
        return array
    array = np.asarray(array).reshape(rows, 1, -1, *array.shape[1:])
    array = np.repeat(array, parts, axis=1)
    return array.reshape(-1, *array.shape[3:])


def per_device(tree: Any, rows: int, parts: int) -> Any:
    """Shards arrays [..., unit] to [device, ..., unit]."""

    def split(array):
        array = _padded(np.asarray(array), parts)
        array = array.reshape(*array.shape[:-1], parts, -1)
        return np.concatenate([np.moveaxis(array, -2, 0)] * rows)

    return jax.tree.map(split, tree)


def join(parts: list[Any], units: int, axis: int = -1) -> Any:
    """Joins trees of disjoint units into one; `axis` is the unit axis."""

    def joined(*arrays):
        array = np.concatenate(arrays, axis=axis)
        return np.take(array, np.arange(units), axis=axis)

    return jax.tree.map(joined, *parts)


def _padded(array: np.ndarray, parts: int) -> np.ndarray:
    missing = -array.shape[-1] % parts
    if not missing:
        return array
    pad = jnp.pad if isinstance(array, jax.Array) else np.pad
    return pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
