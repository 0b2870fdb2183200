"""Counts the exact intersections of units with the concepts present in each image.

Masks [pixel, unit] and one-hot label maps [concept, pixel] of all images are multiplied
as matrices: zeros and ones are exact in bfloat16, and sums in float32 below 2^24. The
host lists the concepts present in each image. See `ops.iou` for what is counted.
"""

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
from jdissect.ops.upsample import interpolate

_CHUNK = 64  # concepts; present concepts are padded to a multiple
_UNITS = 256  # of a TPU's block
_SUBLANES = 16  # rows of a TPU's register of bfloat16


def empty(
    groups: int, concepts: int, categories: int, units: int, target: Target
) -> Int[jax.Array, "group entry row lane"]:
    """Returns counts of zero: int32, of each group and entry a row of numbers.

    Entries are the concepts, a dummy, the categories, and "all images". A row has the
    units, 128 to a line, and then a line with the area of a concept in front.
    """
    shape = (groups, concepts + 1 + categories + 1, _lines(units, target), LANES)
    return jnp.zeros(shape, jnp.int32)


def finish(
    counts: Int[np.ndarray, "group entry row lane"],
    concepts: int,
    units: int,
) -> iou.Counts:
    """Returns the counts as those of `ops.iou`."""
    rows = np.asarray(counts).reshape(*counts.shape[:2], -1)
    area = -(-units // LANES) * LANES
    return iou.Counts(
        intersection=rows[:, : concepts + 1, :units],
        concept=rows[:, : concepts + 1, area],
        unit=rows[:, concepts + 1 :, :units],
    )


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
    counts: Int[AnyArray, "group entry row lane"],
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
) -> Int[jax.Array, "group entry row lane"]:
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
    concepts = counts.shape[1] - annotated.shape[1] - 2
    rows, columns = labels.shape[2:]
    labels = _placed(labels, geometry, target)
    shows = (labels[:, :, None] == present[:, None, :, None, None]).any(axis=1)
    area = shows.sum(axis=(2, 3), dtype=jnp.int32)
    # Another "concept" is every pixel.
    real = _placed(jnp.ones((1, 1, rows, columns), bool), geometry, target)
    real = jnp.broadcast_to(real, (len(shows), *real.shape[1:]))
    planes = jnp.concatenate([shows, real], axis=1).astype(jnp.bfloat16)
    maps = float_keys.canonical(features)
    common = _overlap(planes, maps, cuts, geometry, zero, target)
    everywhere = jnp.concatenate([annotated, jnp.ones_like(valid)[:, None]], axis=1)
    everywhere = (everywhere & valid[:, None]).astype(jnp.int32)
    rows = jnp.concatenate(
        [common[:, :-1], everywhere[:, :, None] * common[:, -1:]], axis=1
    )
    lines, units = counts.shape[2], rows.shape[2]
    before = -(-units // LANES) * LANES
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, lines * LANES - units)))
    lane = jnp.arange(lines * LANES, dtype=jnp.int32)
    area = jnp.pad(area, ((0, 0), (0, everywhere.shape[1])))
    rows = jnp.where(lane == before, area[:, :, None], rows)
    entry = jnp.concatenate(
        [
            jnp.where(present > 0, present - 1, concepts),
            jnp.broadcast_to(
                concepts + 1 + jnp.arange(everywhere.shape[1], dtype=jnp.int32),
                everywhere.shape,
            ),
        ],
        axis=1,
    )
    entry += counts.shape[1] * group[:, None]
    return _added(counts, rows.reshape(-1, lines, LANES), entry.reshape(-1), target)


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
    rows, units = geometry.rows, maps.shape[3]
    width = planes.shape[3]
    grid = pixels.stretched(maps, geometry, zero)
    tile = min(_UNITS, units + -units % LANES)
    pads = (0, -units % tile)
    grid = jnp.pad(grid, ((0, 0), (0, 0), (0, width - grid.shape[2]), pads))
    cuts = jnp.pad(cuts, pads)[None]
    planes = planes.reshape(*planes.shape[:2], -1)
    low, weight = jnp.asarray(rows.low)[None], jnp.asarray(rows.weight)[None]

    def kernel(zero, low, weight, planes, grid, cuts, common, masks):
        def on_row(row, _):
            value = grid[0, low[0, row]]
            if rows.pad:
                below = grid[0, low[0, row] + 1]
                value = interpolate(value, below, weight[0, row], zero[0, 0])
            fires = jnp.where(value > cuts[...], 1.0, 0.0).astype(jnp.bfloat16)
            start = pl.multiple_of(row * width, _SUBLANES)
            masks[pl.ds(start, width), :] = fires

        jax.lax.fori_loop(0, rows.target, on_row, None)
        found = jnp.dot(planes[0], masks[...], preferred_element_type=jnp.float32)
        common[0] = found.astype(jnp.int32)

    found = pl.pallas_call(
        kernel,
        grid=(grid.shape[0], grid.shape[3] // tile),
        in_specs=[
            target.scalars,
            target.scalars,
            target.scalars,
            pl.BlockSpec((1, *planes.shape[1:]), lambda image, unit: (image, 0, 0)),
            pl.BlockSpec(
                (1, *grid.shape[1:3], tile), lambda image, unit: (image, 0, 0, unit)
            ),
            pl.BlockSpec((1, tile), lambda image, unit: (0, unit)),
        ],
        out_specs=pl.BlockSpec(
            (1, planes.shape[1], tile), lambda image, unit: (image, 0, unit)
        ),
        out_shape=jax.ShapeDtypeStruct((*planes.shape[:2], grid.shape[3]), jnp.int32),
        scratch_shapes=[pallas_tpu.VMEM((planes.shape[2], tile), jnp.bfloat16)],
        **target.options,
    )(jnp.reshape(zero, (1, 1)), low, weight, planes, grid, cuts)
    return found[:, :, :units]


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
    values = pixels.placed(values, -1, geometry.columns)
    if target.platform == "gpu":
        return pixels.placed(values, -2, geometry.rows)
    missing = -values.shape[-1] % _SUBLANES
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _lines(units: int, target: Target) -> int:
    lines = -(-units // LANES) + 1
    return lines + -lines % 8 if target.platform == "tpu" else lines
