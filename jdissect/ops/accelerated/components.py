"""Finds connected components and their bounding boxes, on GPUs and TPUs.

Halves, quarters, ... of a map are labelled first: each row by itself, then two rows
together, four, and so on. Where two strips of rows meet, only the last row of the upper
and the first of the lower one connect. Which of their pixels are of one component is
the transitive closure of their adjacency, by repeated squaring of a matrix of the size
width x width. All is comparisons, maxima and small matrix products, without loops of
unknown length, gathers or scatters. The time does not depend on the maps.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jdissect.base.arrays import AnyArray

_NONE = -(2**30)  # of a pixel of the background


def boxes(
    labels: Int[AnyArray, "batch height width"],
) -> Int[Array, "4 batch height width"]:
    """Returns the root, bottom, right and left of every pixel's component.

    The same numbers as `ops.components.boxes`, which says what they are.
    """
    batch, height, width = labels.shape
    strips = 2 ** math.ceil(math.log2(height))
    labels = jnp.pad(labels, ((0, 0), (0, strips - height), (0, 0)))
    ends = _of_runs(labels)[:, :, :, None, :]
    labels = labels[:, :, None, :]
    while strips > 1:
        strips //= 2
        labels = labels.reshape(batch, strips, 2, -1, width)
        ends = ends.reshape(4, batch, strips, 2, -1, width)
        ends = _joined(labels, ends).reshape(4, batch, strips, -1, width)
    minus_root, bottom, right, minus_left = ends[:, :, 0, :height]
    found = jnp.stack([-minus_root, bottom, right, -minus_left])
    size = height * width
    background = labels.reshape(batch, -1, width)[:, :height] == 0
    nothing = jnp.array([size, 0, 0, 0], jnp.int32)[:, None, None, None]
    return jnp.where(background, nothing, found)


def _of_runs(
    labels: Int[Array, "batch height width"],
) -> Int[Array, "4 batch height width"]:
    """Returns -root, bottom, right and -left of the runs of pixels in the rows."""
    _, height, width = labels.shape
    row = jnp.arange(height, dtype=jnp.int32)[:, None]
    column = jnp.arange(width, dtype=jnp.int32)
    padded = jnp.pad(labels, ((0, 0), (0, 0), (1, 1)))
    starts, ends = labels != padded[..., :-2], labels != padded[..., 2:]
    other = column[:, None]
    left = jnp.where((other <= column) & starts[..., None], other, -1).max(axis=-2)
    minus_right = jnp.where((other >= column) & ends[..., None], -other, -width)
    right = -minus_right.max(axis=-2)
    bottom = jnp.broadcast_to(row, labels.shape)
    found = jnp.stack([-(row * width + left), bottom, right, -left])
    return jnp.where(labels == 0, _NONE, found)


def _joined(
    labels: Int[Array, "batch strip 2 row width"],
    ends: Int[Array, "4 batch strip 2 row width"],
) -> Int[Array, "4 batch strip 2 row width"]:
    """Returns the `ends` of components of an upper and a lower strip together."""
    width = labels.shape[-1]
    upper, lower = labels[:, :, 0, -1], labels[:, :, 1, 0]
    of_upper, of_lower = ends[:, :, :, 0, -1], ends[:, :, :, 1, 0]
    column = jnp.arange(width)
    near = jnp.abs(column[:, None] - column) <= 1
    touching = _equal(upper, lower) & (upper != 0)[..., None] & near
    same_upper = _equal(of_upper[0], of_upper[0]) & (upper != 0)[..., None]
    same_lower = _equal(of_lower[0], of_lower[0]) & (lower != 0)[..., None]
    across = _times(touching, same_lower)  # from the upper row to the lower one
    linked = same_upper | _times(across, touching.swapaxes(-1, -2))
    for _ in range(math.ceil(math.log2(width))):
        linked = _times(linked, linked)
    across = _times(linked, across)
    new_upper = jnp.maximum(
        _most(linked, of_upper),
        _most(across, of_lower),
    )
    new_lower = jnp.maximum(of_lower, _most(across.swapaxes(-1, -2), new_upper))
    old = jnp.stack([of_upper[0], of_lower[0]], axis=2)  # -root of the two rows
    new = jnp.stack([new_upper, new_lower], axis=3)
    # All pixels of a component get what a pixel of it in those rows has.
    alike = old[:, :, :, None, :, None] == ends[0][:, :, :, :, None, :]
    alike &= (old != _NONE)[:, :, :, None, :, None]
    found = jnp.where(alike, new[:, :, :, :, None, :, None], _NONE).max(axis=-2)
    return jnp.maximum(ends, found)


def _equal(
    first: Int[Array, "batch strip width"], second: Int[Array, "batch strip width"]
) -> Bool[Array, "batch strip width width"]:
    return first[..., :, None] == second[..., None, :]


def _times(
    first: Bool[Array, "batch strip width width"],
    second: Bool[Array, "batch strip width width"],
) -> Bool[Array, "batch strip width width"]:
    """Returns whether a path leads over any pixel; sums of up to width are exact."""
    product = jnp.matmul(
        first.astype(jnp.bfloat16),
        second.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )
    return product > 0


def _most(
    linked: Bool[Array, "batch strip width width"],
    ends: Int[Array, "4 batch strip width"],
) -> Int[Array, "4 batch strip width"]:
    """Returns for each pixel the largest of those that it is linked to."""
    turned = linked.swapaxes(-1, -2)
    return jnp.where(turned, ends[..., :, None], _NONE).max(axis=-2)
