"""Counts the exact intersections of units with the concepts present in each image.

Masks [pixel, unit] and one-hot label maps [concept, pixel] of all images are multiplied
as matrices: zeros and ones are exact in bfloat16, and sums in float32 below 2^24. The
host lists the concepts present in each image. See `ops.iou` for what is counted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pallas_tpu
from jaxtyping import Bool, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks, float_keys, iou
from jdissect.ops.accelerated import pixels
from jdissect.ops.accelerated.target import LANES, Target
from jdissect.ops.upsample import Axis, interpolate, padded

_CHUNK = 64  # concepts; present concepts are padded to a multiple
_UNITS = 256  # of a TPU's block
_MOST_BYTES = 2**21  # of a block's masks
_PLACES = 8  # a cell's places, where they are rows of a TPU's register of float32
_SUBLANES = 16  # rows of a TPU's register of bfloat16


class Counts(NamedTuple):
    """Running integers; merged by addition.

    Attributes:
      rows: int32[group, entry, line, lane], the units, 128 in a line. The entries are
        the concepts, a dummy, the categories, and "all images": of a concept the pixels
        that it shares with units, of the others the pixels where units fire.
      concept: int32[group, concept], as `iou.Counts.concept`.
    """

    rows: Int[AnyArray, "group entry line lane"]
    concept: Int[AnyArray, "group concept"]


def empty(groups: int, concepts: int, categories: int, units: int) -> Counts:
    """Returns counts of zero."""
    lines = -(-units // LANES)
    lines += -lines % 8  # a TPU's registers
    shape = (groups, concepts + 1 + categories + 1, lines, LANES)
    return Counts(
        jnp.zeros(shape, jnp.int32), jnp.zeros((groups, concepts + 1), jnp.int32)
    )


def finish(counts: Counts, units: int) -> iou.Counts:
    """Returns the counts as those of `ops.iou`, NumPy arrays."""
    rows, concept = np.asarray(counts.rows), np.asarray(counts.concept)
    rows = rows.reshape(*rows.shape[:2], -1)[..., :units]
    concepts = concept.shape[1]
    return iou.Counts(rows[:, :concepts], concept, rows[:, concepts:])


def prepare(
    labels: Int[np.ndarray, "image map mask_height mask_width"],
    valid: Bool[np.ndarray, " image"],
    annotated: Bool[np.ndarray, "image category"],
    column_of: Int[np.ndarray, " number"],
    category: Int[np.ndarray, " concept"],
) -> tuple[
    Int[np.ndarray, "image map mask_height mask_width"],
    Int[np.ndarray, "image present"],
]:
    """Prepares label maps on the host.

    Args:
      labels: concept numbers.
      valid: images that count.
      annotated: whether each image counts for each category.
      column_of: int32, column + 1 of each concept number, 0 for none.
      category: int32, category of each column.

    Returns:
      labels: column + 1 of each pixel, 0 where nothing counts; int16 if that suffices.
      present: int32, column + 1 of the concepts in each image; -1 beyond the last.
    """
    kind = np.int16 if len(category) < np.iinfo(np.int16).max else np.int32
    counts_for = np.concatenate(
        [np.zeros((len(labels), 1), bool), annotated[:, category]], axis=1
    )
    counts_for &= valid[:, None]
    found = np.zeros(labels.shape, kind)
    there = np.zeros((len(labels), len(category) + 1), bool)
    for image, numbers in enumerate(labels):
        columns = np.where(counts_for[image][column_of], column_of, 0).astype(kind)
        found[image] = columns[numbers]
        there[image, found[image]] = True
    there[:, 0] = False
    number = there.sum(axis=1)
    size = max(-(-int(number.max(initial=0)) // _CHUNK), 1) * _CHUNK
    present = np.full((len(labels), size), -1, np.int32)
    of, column = np.nonzero(there)
    starts = np.cumsum(number) - number
    present[of, np.arange(len(of)) - starts[of]] = column
    return found, present


def update(
    counts: Counts,
    features: Float[AnyArray, "image height width unit"],
    valid: Bool[AnyArray, " image"],
    labels: Int[AnyArray, "image map mask_height mask_width"],
    present: Int[AnyArray, "image present"],
    annotated: Bool[AnyArray, "image category"],
    group: Int[AnyArray, " image"],
    cuts: Float[AnyArray, " unit"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
    target: Target,
) -> Counts:
    """Adds images to the counts.

    Args:
      counts: the counts so far.
      features: feature maps of any float type.
      valid: images that count.
      labels, present: from `prepare`.
      annotated: whether each image counts for each category.
      group: int32, group of each image.
      cuts: float32, `float_keys.cuts` of T_k; a unit fires where its activation is
        above.
      geometry: geometry from `bit_masks.plan`.
      zero: int32 0 passed as an argument to the compiled program (see
        `upsample.fence`).
      target: the devices.
    """
    groups, concepts = counts.concept.shape
    labels = _placed(labels, geometry, target)
    shows = (labels[:, :, None] == present[:, None, :, None, None]).any(axis=1)
    area = shows.sum(axis=(2, 3), dtype=jnp.int32)
    # Another "concept" is every pixel.
    shape = (1, 1, geometry.rows.target, geometry.columns.target)
    real = _placed(jnp.ones(shape, bool), geometry, target)
    real = jnp.broadcast_to(real, (len(shows), *real.shape[1:]))
    planes = jnp.concatenate([shows, real], axis=1).astype(jnp.bfloat16)
    maps = float_keys.canonical(features)
    common = _overlap(planes, maps, cuts, geometry, zero, target)
    everywhere = jnp.concatenate([annotated, jnp.ones_like(valid)[:, None]], axis=1)
    everywhere = (everywhere & valid[:, None]).astype(jnp.int32)
    rows = jnp.concatenate(
        [common[:, :-1], everywhere[:, :, None] * common[:, -1:]], axis=1
    )
    lines = counts.rows.shape[2]
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, lines * LANES - rows.shape[2])))
    # What is no concept goes to the dummy.
    column = jnp.where(present > 0, present - 1, concepts - 1)
    others = concepts + jnp.arange(everywhere.shape[1], dtype=jnp.int32)
    entry = jnp.concatenate(
        [column, jnp.broadcast_to(others, everywhere.shape)], axis=1
    )
    entry += counts.rows.shape[1] * group[:, None]
    place = column + concepts * group[:, None]
    same = place[:, :, None] == jnp.arange(groups * concepts, dtype=jnp.int32)
    areas = jnp.where(same, area[:, :, None], 0).sum(axis=(0, 1), dtype=jnp.int32)
    return Counts(
        _added(counts.rows, rows.reshape(-1, lines, LANES), entry.reshape(-1), target),
        counts.concept + areas.reshape(groups, concepts),
    )


def _overlap(planes, maps, cuts, geometry, zero, target: Target):
    """Counts the pixels that each plane shares with each unit's mask, per image."""
    images, units = maps.shape[0], maps.shape[3]
    if target.platform == "tpu":
        return _overlap_in_kernel(planes, maps, cuts, geometry, zero, target)
    values = pixels.upsampled(maps, geometry, zero)
    fires = (values > cuts).reshape(images, -1, units).astype(jnp.bfloat16)
    planes = planes.reshape(*planes.shape[:2], -1)
    return jax.lax.dot_general(
        planes,
        fires,
        (((2,), (1,)), ((0,), (0,))),
        preferred_element_type=jnp.float32,
    ).astype(jnp.int32)


def _overlap_in_kernel(planes, maps, cuts, geometry, zero, target: Target):
    """Does the same in one kernel, which keeps the masks of 256 units on the chip."""
    rows, columns, units = geometry.rows, geometry.columns, maps.shape[3]
    images, count, height, width = planes.shape
    cells, inside = _columns(columns)
    grid = padded(maps, rows, columns)
    if not inside:
        grid = pixels.along(grid, 2, cells, zero)
        grid = jnp.pad(grid, ((0, 0), (0, 0), (0, width - grid.shape[2]), (0, 0)))
    tile = min(_UNITS, units + -units % LANES)
    grid = jnp.pad(grid, ((0, 0), (0, 0), (0, 0), (0, -units % tile)))
    cuts = jnp.pad(cuts, (0, -units % tile))[None]
    # As many rows of masks at once as the chip holds.
    some = min(height, max(1, _MOST_BYTES // (2 * width * tile)))
    parts = -(-height // some)
    planes = jnp.pad(planes, ((0, 0), (0, 0), (0, parts * some - height), (0, 0)))
    planes = planes.reshape(images, count, parts, some * width).swapaxes(1, 2)
    low, weight = (
        jnp.asarray(np.pad(table, (0, parts * some - height)))[None]
        for table in (rows.low, rows.weight)
    )
    across = np.broadcast_to(cells.weight.reshape(-1, 1), (cells.weight.size, tile))

    def kernel(zero, low, weight, planes, grid, cuts, across, common, wide, masks):
        zero, part = zero[0, 0], pl.program_id(2)

        def stretch(row, _):
            size = cells.weight.shape[1]
            for number, left in enumerate(map(int, cells.low)):
                places = slice(number * size, (number + 1) * size)
                wide[row, places] = interpolate(
                    grid[0, row, left : left + 1],
                    grid[0, row, left + 1 : left + 2],
                    across[places],
                    zero,
                )

        def fire(number, _):
            row = part * some + number
            source = wide if inside else grid.at[0]
            value = source[low[0, row]]
            if rows.pad:
                below = source[low[0, row] + 1]
                value = interpolate(value, below, weight[0, row], zero)
            fires = jnp.where(value > cuts[...], 1.0, 0.0).astype(jnp.bfloat16)
            start = pl.multiple_of(number * width, _SUBLANES)
            masks[pl.ds(start, width), :] = fires

        @pl.when(part == 0)
        def _():
            common[...] = jnp.zeros_like(common)
            if inside:
                jax.lax.fori_loop(0, grid.shape[1], stretch, None)

        jax.lax.fori_loop(0, some, fire, None)
        found = jnp.dot(planes[0, 0], masks[...], preferred_element_type=jnp.float32)
        common[0] += found.astype(jnp.int32)

    found = pl.pallas_call(
        kernel,
        grid=(images, grid.shape[3] // tile, parts),
        in_specs=[
            target.scalars,
            target.scalars,
            target.scalars,
            pl.BlockSpec(
                (1, 1, *planes.shape[2:]), lambda image, unit, part: (image, part, 0, 0)
            ),
            pl.BlockSpec(
                (1, *grid.shape[1:3], tile),
                lambda image, unit, part: (image, 0, 0, unit),
            ),
            pl.BlockSpec((1, tile), lambda image, unit, part: (0, unit)),
            pl.BlockSpec(across.shape, lambda image, unit, part: (0, 0)),
        ],
        out_specs=pl.BlockSpec(
            (1, count, tile), lambda image, unit, part: (image, 0, unit)
        ),
        out_shape=jax.ShapeDtypeStruct((images, count, grid.shape[3]), jnp.int32),
        scratch_shapes=[
            pallas_tpu.VMEM(
                (grid.shape[1], width, tile) if inside else (1, 8, LANES), jnp.float32
            ),
            pallas_tpu.VMEM((some * width, tile), jnp.bfloat16),
        ],
        **target.options,
    )(jnp.reshape(zero, (1, 1)), low, weight, planes, grid, cuts, jnp.asarray(across))
    return found[:, :, :units]


def _columns(axis: Axis) -> tuple[pixels.Layout, bool]:
    """Returns the places of a TPU's columns, and whether the kernel stretches them.

    It does where most rows of its registers then are pixels.
    """
    whole = pixels.layout(axis, _PLACES)
    if axis.pad and len(whole.pixel) <= 2 * axis.target:
        return whole, True
    return pixels.layout(axis), False


def _added(total, rows, entry, target: Target):
    """Adds rows to the entries of their groups."""
    flat = total.reshape(-1, *total.shape[2:])
    if target.platform == "gpu":
        found = flat.at[entry].add(rows)
    else:
        found = _added_in_order(flat, rows, entry, target)
    return found.reshape(total.shape)


def _added_in_order(total, rows, entry, target: Target):
    """Does the same without a scatter.

    The rows are sorted by entry, so an entry is read once, gets all its rows, and is
    written once.
    """
    source = jnp.arange(len(entry), dtype=jnp.int32)
    entry, source = jax.lax.sort((entry, source), num_keys=1)
    block = (1, *total.shape[1:])

    def kernel(entry, source, rows, before, after):
        del source
        step = pl.program_id(0)
        first = (step == 0) | (entry[step] != entry[jnp.maximum(step - 1, 0)])

        @pl.when(first)
        def _():
            after[...] = before[...] + rows[...]

        @pl.when(~first)
        def _():
            after[...] += rows[...]

    at_source = pl.BlockSpec(block, lambda step, entry, source: (source[step], 0, 0))
    at_entry = pl.BlockSpec(block, lambda step, entry, source: (entry[step], 0, 0))
    return pl.pallas_call(
        kernel,
        grid_spec=pallas_tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(len(entry),),
            in_specs=[at_source, at_entry],
            out_specs=at_entry,
        ),
        out_shape=jax.ShapeDtypeStruct(total.shape, total.dtype),
        input_output_aliases={3: 0},
        **target.options,
    )(entry, source, rows, total)


def _placed(values, geometry: bit_masks.Geometry, target: Target):
    """Reorders pixels [..., height, width] as the masks have them; 0 for none."""
    if target.platform == "gpu":
        values = pixels.placed(values, -1, pixels.layout(geometry.columns))
        return pixels.placed(values, -2, pixels.layout(geometry.rows))
    values = pixels.placed(values, -1, _columns(geometry.columns)[0])
    missing = -values.shape[-1] % _SUBLANES
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
