"""Finds connected components of label maps, and splits objects into quarters.

A component is an 8-connected set of pixels of one label; label 0 is background. Its
*root* is the smallest flat index (row * width + column) of its pixels, so roots ascend
in raster order of the components' first pixels, and root // width is the top row.

The algorithm hooks trees and jumps pointers. Initially every pixel is its own tree. In
each round, every tree that touches other trees of its component hooks its root to the
smallest root it touches, if that is smaller than its own; then all pixels follow the
pointers until they point to their root.

Bound: two rounds at least halve the number of trees of a component with several trees.
A tree v that survives a round touches only greater trees, all of which hook. If one
hooks elsewhere, to a tree smaller than v, then v touches that tree after the round and
hooks in the next. So a tree that survives both rounds was the target of every tree it
touched, of at least one, and each tree has one target: every survivor has removed at
least one tree. This gives at most 2 floor(log2(pixels)) rounds for any shape: 22 for
56x56. A forest is at most as deep as it has trees, so a round takes log2 of that jumps,
and one to detect the end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import forms
from jdissect.ops.accelerated import components as accelerated

MODES = ("netdissect", "all")


class Work(NamedTuple):
    """Cost of a labelling, over all maps: int32."""

    rounds: Int[Array, ""]
    jumps: Int[Array, ""]


def components(
    labels: Int[AnyArray, "batch height width"],
) -> Int[Array, "batch height width"]:
    """Returns the root of every pixel's component.

    A map's result does not depend on the other maps.

    Args:
      labels: 0 is background; components have equal labels and are 8-connected.

    Returns:
      int32; the flat index of the component's first pixel in raster order. Background
      pixels get height * width, which is out of range as a segment number.
    """
    return _label(labels)[0]


def boxes(
    labels: Int[AnyArray, "batch height width"],
) -> Int[Array, "4 batch height width"]:
    """Returns the root, bottom, right and left of every pixel's component.

    Args:
      labels: as for `components`.

    Returns:
      int32; the roots as `components` returns them, then the largest row, the largest
      and the smallest column of the component; 0 for background pixels.
    """
    batch, height, width = labels.shape
    size = height * width
    roots = components(labels)
    row = jnp.arange(height, dtype=jnp.int32)[:, None]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]
    # Largest row, column and -column of each component, in one segment reduction.
    ends = jnp.stack(jnp.broadcast_arrays(row, column, -column), axis=-1)
    ends = jnp.broadcast_to(ends.reshape(size, 3), (batch, size, 3))

    def of_map(roots, ends):
        corners = jnp.full((size, 3), -size, jnp.int32)
        corners = corners.at[roots].max(ends, mode="drop")
        return corners.at[roots].get(mode="fill", fill_value=0)

    corners = jax.vmap(of_map)(roots.reshape(batch, size), ends)
    corners = corners.reshape(batch, height, width, 3)
    bottom, right, minus_left = jnp.moveaxis(corners, -1, 0)
    return jnp.stack([roots, bottom, right, -minus_left])


def quarters(
    objects: Int[AnyArray, "batch height width"], num_objects: int, mode: str
) -> Int[Array, "batch 2 height width"]:
    """Returns two maps that split each object component at its bounding box's middle.

    netdissect's rule: for a bounding box of rows top..bottom and columns left..right,
    rows < (top + bottom + 1) // 2 are the top ("-t"), columns
    < (left + right + 1) // 2 the left ("-l"). Its loop over components ends one early,
    so that an image's last component has no quarters.

    Args:
      objects: object numbers, 1..num_objects; 0 is background.
      num_objects: O. Object o has number o + O for its top, o + 2 O for its left,
        o + 3 O for its bottom and o + 4 O for its right.
      mode: 'netdissect' leaves out each image's last component in raster order of
        first pixels; 'all' leaves out none.

    Returns:
      int32; the map of tops and bottoms, then that of lefts and rights; 0 where there
      is no object or it is left out.

    Raises:
      ValueError: unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; use {', '.join(map(repr, MODES))}")
    objects = objects.astype(jnp.int32)
    _, height, width = objects.shape
    form = boxes if forms.on_cpu() else accelerated.boxes
    roots, bottom, right, left = form(objects)
    shown = objects > 0
    if mode == "netdissect":
        first = jnp.where(shown, roots, -1)
        shown &= first < first.max(axis=(1, 2), keepdims=True)

    row = jnp.arange(height, dtype=jnp.int32)[:, None]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]
    is_top = row < (roots // width + bottom + 1) // 2
    is_left = column < (left + right + 1) // 2
    vertical = objects + jnp.where(is_top, 1, 3) * num_objects
    horizontal = objects + jnp.where(is_left, 2, 4) * num_objects
    both = jnp.stack([vertical, horizontal], axis=1)
    return jnp.where(shown[:, None], both, 0)


def _label(
    labels: Int[AnyArray, "batch height width"],
) -> tuple[Int[Array, "batch height width"], Work]:
    """Returns the roots as `components` does, and the cost."""
    batch, height, width = labels.shape
    size = height * width
    # Pointers are flat indices into all maps, so that one gather and scatter suffice.
    own = jnp.arange(batch * size, dtype=jnp.int32).reshape(labels.shape)
    linked = _links(labels)

    def smallest_touched(roots):
        padded = jnp.pad(roots, ((0, 0), (1, 1), (1, 1)))
        smallest = roots
        for (y, x), link in zip(_NEIGHBOURS, linked, strict=True):
            other = padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
            smallest = jnp.where(link, jnp.minimum(smallest, other), smallest)
        return smallest

    def jump(pointers):
        return pointers.reshape(-1)[pointers]

    def settle(pointers, jumps):
        def body(state):
            _, ahead, jumps = state
            return ahead, jump(ahead), jumps + 1

        start = pointers, jump(pointers), jumps + 1
        return jax.lax.while_loop(lambda s: (s[0] != s[1]).any(), body, start)[1:]

    def body(state):
        roots, smallest, rounds, jumps = state
        hooked = roots.reshape(-1).at[roots].min(smallest)
        roots, jumps = settle(hooked.reshape(roots.shape), jumps)
        return roots, smallest_touched(roots), rounds + 1, jumps

    # The first round needs no scatter: every pixel is a root.
    roots, jumps = settle(smallest_touched(own), jnp.int32(0))
    start = roots, smallest_touched(roots), jnp.int32(1), jumps
    roots, _, rounds, jumps = jax.lax.while_loop(
        lambda state: (state[0] != state[1]).any(), body, start
    )
    offset = size * jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    return jnp.where(labels == 0, size, roots - offset), Work(rounds, jumps)


_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def _links(
    labels: Int[AnyArray, "batch height width"],
) -> list[Bool[Array, "batch height width"]]:
    """Returns for each of the eight neighbors whether it has the pixel's label."""
    _, height, width = labels.shape
    padded = jnp.pad(labels, ((0, 0), (1, 1), (1, 1)))
    return [
        (padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] == labels)
        & (labels != 0)
        for y, x in _NEIGHBOURS
    ]
