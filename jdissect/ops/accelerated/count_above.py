"""Counts the pixels above each of a unit's cuts, for all images in one kernel.

A block of the kernel holds 128 units of one image (of 8 images on a TPU) and keeps one
counter per cut in registers. It loops over the pixels of the mask grid, computes each
by `upsample.interpolate`, and compares it with all cuts, so no pixel is ever stored.

Cost: 2 operations per pixel and cut (3 where a comparison does not give an integer),
and about 5 per pixel to interpolate it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks, float_keys
from jdissect.ops.accelerated.target import LANES, Target
from jdissect.ops.upsample import interpolate

# Cuts that a block counts at once: as many counters as registers hold.
_CUTS = {"gpu": 40, "tpu": 20}
# Of a block's feature maps. A GPU reads them where they are.
_MOST_BYTES = {"gpu": 2**40, "tpu": 2**22}


def count_above(
    features: Float[AnyArray, "image height width unit"],
    cuts: Float[AnyArray, "cut unit"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
    target: Target,
) -> Int[jax.Array, "cut image unit"]:
    """Returns how many pixels of each image's upsampled maps exceed each cut.

    Args:
      features: feature maps of any float type.
      cuts: float32, see `float_keys.cuts`.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
      target: the devices.
    """
    images, units, number = features.shape[0], features.shape[3], len(cuts)
    windows = _windows(geometry, target)
    maps = _by_window(features, geometry, windows, target.images)
    group = min(number, _CUTS[target.platform])
    groups = -(-number // group)
    cuts = jnp.pad(
        cuts, [(0, groups * group - number), (0, maps.shape[-1] - units)]
    ).reshape(groups, group, -1)
    tables, weights = _tables(geometry, windows)
    rows, columns = maps.shape[1:3]
    found = pl.pallas_call(
        functools.partial(_kernel, geometry, windows, group),
        grid=(maps.shape[-1] // LANES, maps.shape[3] // target.images)
        + (len(windows), groups),
        in_specs=[
            target.scalars,
            target.scalars,
            target.scalars,
            pl.BlockSpec(
                (1, rows, columns, target.images, LANES),
                lambda unit, image, window, group: (window, 0, 0, image, unit),
            ),
            pl.BlockSpec(
                (1, group, LANES), lambda unit, image, window, group: (group, 0, unit)
            ),
        ],
        out_specs=pl.BlockSpec(
            (1, 1, group, target.images, LANES),
            lambda unit, image, window, group: (window, group, 0, image, unit),
        ),
        out_shape=jax.ShapeDtypeStruct(
            (len(windows), groups, group, *maps.shape[3:]), jnp.int32
        ),
        **target.options,
    )(jnp.reshape(zero, (1, 1)), tables, weights, maps, cuts)
    found = found.sum(axis=0, dtype=jnp.int32).reshape(-1, *maps.shape[3:])
    return found[:number, :images, :units]


def _kernel(geometry, windows, group, zero, tables, weights, maps, cuts, counts):
    rows, columns = geometry.rows, geometry.columns
    window = pl.program_id(2)
    zero = zero[0, 0]
    cuts = [cuts[0, number : number + 1] for number in range(group)]
    cells = max(len(one.lows) for one in windows)
    low_at, start_at = columns.target, columns.target + cells

    def stretched(row, column):
        left = tables[window, column]
        value = maps[0, row, left]
        if not columns.pad:
            return value
        right = maps[0, row, left + 1]
        return interpolate(value, right, weights[0, column], zero)

    def on_column(column, counts):
        def on_cell(cell, counts):
            row = tables[window, low_at + cell]
            above = stretched(row, column)
            below = stretched(row + 1, column) if rows.pad else above

            def on_pixel(pixel, counts):
                value = above
                if rows.pad:
                    weight = weights[0, columns.target + pixel]
                    value = interpolate(above, below, weight, zero)
                return tuple(
                    count + (value > cut).astype(jnp.int32)
                    for count, cut in zip(counts, cuts, strict=True)
                )

            first, last = (tables[window, start_at + cell + n] for n in range(2))
            return jax.lax.fori_loop(first, last, on_pixel, counts)

        return jax.lax.fori_loop(0, cells, on_cell, counts)

    none = jnp.zeros(counts.shape[3:], jnp.int32)
    found = jax.lax.fori_loop(0, columns.target, on_column, (none,) * group)
    for number, count in enumerate(found):
        counts[0, 0, number] = count


@dataclasses.dataclass(frozen=True)
class _Window:
    """Some rows of the mask grid, and the rows of the padded grid around them.

    Attributes:
      first, rows: the first of those grid rows, and their number.
      lows: of each cell, the grid row above it, counted from `first`.
      starts: of each cell, its first pixel row; at the end the last cell's end. A cell
        is the pixel rows between two grid rows.
    """

    first: int
    rows: int
    lows: tuple[int, ...]
    starts: tuple[int, ...]


def _windows(geometry: bit_masks.Geometry, target: Target) -> list[_Window]:
    """Splits the mask grid by rows so that a block's maps fit into fast memory."""
    rows, columns = geometry.rows, geometry.columns
    across = 4 * (columns.size + 2 * columns.pad) * target.images * LANES
    most = max(_MOST_BYTES[target.platform] // across, 2)
    found, start = [], 0
    while start < rows.target:
        first = int(rows.low[start])
        stop = int(np.searchsorted(rows.high, first + most))
        lows, at = np.unique(rows.low[start:stop], return_index=True)
        found.append(
            _Window(
                first=first,
                rows=int(rows.high[stop - 1]) - first + 1,
                lows=tuple(map(int, lows - first)),
                starts=(*map(int, at + start), stop),
            )
        )
        start = stop
    return found


def _by_window(features, geometry, windows, images):
    """Returns each window's padded maps: [window, row, column, image, unit]."""
    rows, columns = geometry.rows, geometry.columns
    maps = float_keys.canonical(features).transpose(1, 2, 0, 3)
    height = max(window.rows for window in windows)
    below = max(window.first for window in windows) + height
    below -= rows.size + rows.pad
    maps = jnp.pad(
        maps,
        [
            (rows.pad, max(below, rows.pad)),
            (columns.pad, columns.pad),
            (0, -maps.shape[2] % images),
            (0, -maps.shape[3] % LANES),
        ],
    )
    return jnp.stack([maps[w.first : w.first + height] for w in windows])


def _tables(geometry, windows):
    """Returns what the kernel looks up: int32[window, n], float32[1, columns + rows].

    Of each window: the grid column left of each pixel column, the grid row above each
    cell, and each cell's first pixel row. Then the weights of pixel columns and rows.
    """
    cells = max(len(window.lows) for window in windows)
    table = [
        np.concatenate(
            [
                geometry.columns.low,
                np.pad(window.lows, (0, cells - len(window.lows))),
                np.pad(window.starts, (0, cells - len(window.lows)), mode="edge"),
            ]
        )
        for window in windows
    ]
    weights = np.concatenate([geometry.columns.weight, geometry.rows.weight])
    return jnp.asarray(np.stack(table), jnp.int32), jnp.asarray(weights)[None]
