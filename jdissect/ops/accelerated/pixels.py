"""Upsamples all images at once by broadcasting, without gathers.

The pixels between two grid points are a *cell*. From 7 to 56 points every cell has
eight pixels, so a row of the mask grid is the row of cells, each repeated eight times,
with eight weights. Where cells have different numbers of pixels, all get as many as the
largest, and `Layout.pixel` says which places are pixels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks
from jdissect.ops.upsample import Axis, interpolate, padded


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The places of one axis's pixels, cell by cell.

    Attributes:
      axis: the axis.
      low: int32[cell], the grid point before each cell.
      weight: float32[cell, place], each pixel's distance from that point.
      first, last: the range of places that is kept, counted over all cells.
      pixel: int32[last - first], the pixel at each place; -1 for none.
    """

    axis: Axis
    low: Int[np.ndarray, " cell"]
    weight: Float[np.ndarray, "cell place"]
    first: int
    last: int
    pixel: Int[np.ndarray, " kept"]


@functools.cache
def layout(axis: Axis, multiple: int = 1) -> Layout:
    """Returns the places of an axis's pixels.

    Args:
      axis: the axis.
      multiple: each cell has a multiple of so many places. If that is 1, places before
        the first pixel and after the last are cut off.
    """
    if not axis.pad:
        pixel = np.arange(axis.target, dtype=np.int32)
        pixel = np.pad(pixel, (0, -axis.target % multiple), constant_values=-1)
        return Layout(axis, axis.low, axis.weight[:, None], 0, len(pixel), pixel)
    low, cell, count = np.unique(axis.low, return_inverse=True, return_counts=True)
    size = count.max()
    place = np.arange(axis.target) - np.searchsorted(axis.low, axis.low)
    if size > 1 and not axis.low[0]:
        # The first cell begins in its middle, as pixels are in the middle of points.
        place = place + np.where(cell == 0, size - count[0], 0)
    pixel = np.full((len(low), size + -size % multiple), -1, np.int32)
    pixel[cell, place] = np.arange(axis.target)
    weight = np.zeros(pixel.shape, np.float32)
    weight[cell, place] = axis.weight
    first, last = 0, pixel.size
    if multiple == 1:
        there = np.flatnonzero(pixel.reshape(-1) >= 0)
        first, last = int(there[0]), int(there[-1]) + 1
    return Layout(axis, low, weight, first, last, pixel.reshape(-1)[first:last])


def upsampled(
    features: Float[AnyArray, "image height width unit"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
) -> Float[Array, "image place_y place_x unit"]:
    """Returns every pixel of the maps at its place; what no pixel has is arbitrary.

    Args:
      features: feature maps of any float type.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
    """
    maps = padded(features, geometry.rows, geometry.columns)
    maps = along(maps, 2, layout(geometry.columns), zero)
    return along(maps, 1, layout(geometry.rows), zero)


def placed(
    values: Shaped[AnyArray, "..."], along: int, to: Layout
) -> Shaped[Array, "..."]:
    """Puts what pixels have at their places; 0 where there is no pixel.

    Args:
      values: one value per pixel along the axis.
      along: number of that axis in `values`, from the end: -1, -2.
      to: the places.
    """
    along += values.ndim
    parts, start = [], 0
    while start < len(to.pixel):
        # Places with following pixels, then places without.
        first, stop = int(to.pixel[start]), start
        while stop < len(to.pixel) and to.pixel[stop] == first + stop - start >= 0:
            stop += 1
        end = stop
        while end < len(to.pixel) and to.pixel[end] < 0:
            end += 1
        some = jax.lax.slice_in_dim(
            values, max(first, 0), max(first, 0) + stop - start, axis=along
        )
        pads = [(0, 0)] * values.ndim
        pads[along] = (0, end - stop)
        parts.append(jnp.pad(some, pads))
        start = end
    return jnp.concatenate(parts, axis=along)


def along(
    maps: Float[AnyArray, "..."], axis: int, to: Layout, zero: Int[AnyArray, ""]
) -> Float[Array, "..."]:
    """Upsamples along one axis of the padded grid.

    Args:
      maps: the maps, float32.
      axis: the axis of `maps`, from the front.
      to: the places.
      zero: as for `upsampled`.
    """
    if not to.axis.pad:  # the grid itself, or constant
        shape = (*maps.shape[:axis], to.axis.target, *maps.shape[axis + 1 :])
        return jnp.broadcast_to(maps, shape)
    low, high = (
        jnp.expand_dims(_points(maps, axis, points), axis + 1)
        for points in (to.low, to.low + 1)
    )
    weight = to.weight.reshape(*to.weight.shape, *(1,) * (maps.ndim - axis - 1))
    found = interpolate(low, high, weight, zero)
    shape = (*maps.shape[:axis], to.weight.size, *maps.shape[axis + 1 :])
    return jax.lax.slice_in_dim(found.reshape(shape), to.first, to.last, axis=axis)


def _points(maps, axis: int, points):
    """Returns some points of an axis by slices, where they are evenly spaced."""
    steps = np.unique(np.diff(points))
    if len(steps) < 2 and (not len(steps) or steps[0] > 0):
        step = int(steps[0]) if len(steps) else 1
        last = int(points[-1]) + 1
        return jax.lax.slice_in_dim(maps, int(points[0]), last, step, axis)
    return jnp.stack(
        [jax.lax.index_in_dim(maps, int(p), axis, False) for p in points], axis
    )
