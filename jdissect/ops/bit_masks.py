"""Processes every pixel of one image's upsampled maps without storing them.

A mask grid of 56x56 with 2,048 units has 6.4 million pixels per image, 26 MB as
float32: writing and reading it costs more than the arithmetic on it. So pixels are
computed in small tiles (a few rows of a few units) that stay in cache, passed to a
function, and dropped. The sketch, the sweeps and the masks are such functions.

Masks are stored as bits. A *block* is 4 rows by 8 columns of pixels in one 32-bit word,
bit 8 * row + column; words are [block, unit] with blocks in raster order. Bits outside
the grid are never set.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt

from jdissect.base.arrays import AnyArray
from jdissect.ops.upsample import Axis, interpolate, plan_axis, stretch

BLOCK_ROWS, BLOCK_COLUMNS = 4, 8
UNITS = 128  # per tile: 4 rows x 56 pixels x 128 units are 115 KB


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Maps a feature grid to a mask grid and the mask grid's blocks."""

    rows: Axis
    columns: Axis

    @property
    def pixels(self) -> int:
        return self.rows.target * self.columns.target

    @property
    def block_grid(self) -> tuple[int, int]:
        return (
            -(-self.rows.target // BLOCK_ROWS),
            -(-self.columns.target // BLOCK_COLUMNS),
        )

    @property
    def blocks(self) -> int:
        return self.block_grid[0] * self.block_grid[1]


@functools.cache
def plan(grid: tuple[int, int], shape: tuple[int, int]) -> Geometry:
    """Returns the plan for feature maps of size `grid` and masks of size `shape`."""
    return Geometry(plan_axis(grid[0], shape[0]), plan_axis(grid[1], shape[1]))


def row_groups(axis: Axis, size: int) -> tuple[np.ndarray, ...]:
    """Groups an axis's low, high, weight and used: [groups, size]; the end repeats."""
    groups = -(-axis.target // size)
    pixel = np.arange(groups * size).reshape(groups, size)
    used = pixel < axis.target
    pixel = np.minimum(pixel, axis.target - 1)
    return axis.low[pixel], axis.high[pixel], axis.weight[pixel], used


def over_units(function: Callable[[Any], Any], arrays: Any, tile: int = UNITS) -> Any:
    """Applies `function` to a tile of units at a time, so that tiles stay in cache.

    Args:
      function: pytree of [..., tile] -> pytree of [..., tile].
      arrays: pytree of [..., unit].
      tile: units per tile.

    Returns:
      The function's results as [..., unit].
    """
    units = jax.tree.leaves(arrays)[0].shape[-1]
    tile = min(units, tile)
    tiles = -(-units // tile)

    arrays = jax.tree.map(
        lambda array: jnp.pad(
            array, [(0, 0)] * (array.ndim - 1) + [(0, tiles * tile - units)]
        ),
        arrays,
    )

    def on_tile(first):
        some = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=tile, axis=-1)
        return function(jax.tree.map(lambda array: some(array, first), arrays))

    def join(array):
        array = jnp.moveaxis(array, 0, -2)
        return array.reshape(*array.shape[:-2], tiles * tile)[..., :units]

    firsts = tile * jnp.arange(tiles, dtype=jnp.int32)
    return jax.tree.map(join, jax.lax.map(on_tile, firsts))


def used_bits(geometry: Geometry) -> UInt[np.ndarray, " block"]:
    """Returns the bits of each block that are pixels of the mask grid."""
    height, width = geometry.block_grid
    y = np.arange(height * BLOCK_ROWS) < geometry.rows.target
    x = np.arange(width * BLOCK_COLUMNS) < geometry.columns.target
    used = (y[:, None] & x).reshape(height, BLOCK_ROWS, width, BLOCK_COLUMNS)
    bits = np.arange(32, dtype=np.uint32).reshape(BLOCK_ROWS, 1, BLOCK_COLUMNS)
    words = (used.astype(np.uint32) << bits).sum(axis=(1, 3), dtype=np.uint32)
    return words.reshape(-1)


def pack(
    predicate: Callable[[Float[Array, "block unit"], Any], Bool[Array, "block unit"]],
    features: Float[AnyArray, "height width unit"],
    per_unit: Any,
    geometry: Geometry,
    zero: Int[AnyArray, ""],
) -> UInt[Array, "block unit"]:
    """Sets the bits of the pixels for which `predicate(values, per_unit)` holds.

    Each call of the predicate gets the values at one bit position of several blocks.
    """

    low, high, weight, _ = map(jnp.asarray, row_groups(geometry.rows, BLOCK_ROWS))

    def on_units(arguments):
        features, per_unit = arguments
        grid = stretch(features, geometry.rows, geometry.columns, zero)
        pad = -grid.shape[1] % BLOCK_COLUMNS
        grid = jnp.pad(grid, [(0, 0), (0, pad), (0, 0)])
        across, units = grid.shape[1] // BLOCK_COLUMNS, grid.shape[2]
        grid = grid.reshape(-1, across, BLOCK_COLUMNS, units)

        def on_rows(group):
            low, high, weight = group

            def at(row, column):
                start = (row, np.int32(0), np.int32(column), np.int32(0))
                there = jax.lax.dynamic_slice(grid, start, (1, across, 1, units))
                return there[0, :, 0]

            # Bit by bit: a single loop that stores only the words.
            word = jnp.zeros((across, units), jnp.uint32)
            for row in range(BLOCK_ROWS):
                for column in range(BLOCK_COLUMNS):
                    bit = np.uint32(1 << (BLOCK_COLUMNS * row + column))
                    ends = at(low[row], column), at(high[row], column)
                    values = interpolate(*ends, weight[row], zero)
                    here = predicate(values, per_unit)
                    word = word | jnp.where(here, bit, np.uint32(0))
            return word

        return jax.lax.map(on_rows, (low, high, weight))

    words = over_units(on_units, (features, per_unit))
    words = words.reshape(geometry.blocks, features.shape[-1])
    return words & jnp.asarray(used_bits(geometry))[:, None]


def by_block(
    pixels: Shaped[AnyArray, "*rest height width"],
) -> Shaped[Array, "*rest block 32"]:
    """Reorders pixels to the bit order of `pack`; pixels outside the grid are 0."""
    *rest, height, width = pixels.shape
    pad = [(0, -height % BLOCK_ROWS), (0, -width % BLOCK_COLUMNS)]
    pixels = jnp.pad(pixels, [(0, 0)] * len(rest) + pad)
    across = pixels.shape[-1] // BLOCK_COLUMNS
    pixels = pixels.reshape(*rest, -1, BLOCK_ROWS, across, BLOCK_COLUMNS)
    return jnp.moveaxis(pixels, -3, -2).reshape(*rest, -1, BLOCK_ROWS * BLOCK_COLUMNS)


def pack_bits(flags: Bool[AnyArray, "*rest 32"]) -> UInt[Array, "*rest"]:
    """Packs flags in the order of `by_block` into words."""
    bits = np.uint32(1) << np.arange(flags.shape[-1], dtype=np.uint32)
    return jnp.where(flags, bits, np.uint32(0)).sum(axis=-1, dtype=jnp.uint32)
