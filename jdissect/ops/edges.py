"""Places the edges at which the sketch counts each unit's pixels.

Edges are placed before the stream, from samples of a few images spread over the data.
Counts are exact for any edges; good ones are dense around the threshold, and elsewhere
form the bins of the histogram.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import bit_masks
from jdissect.ops import float_keys as order
from jdissect.ops.upsample import Axis, interpolate, stretch

# Edges are at these multiples of the quantile, in ranks from above...
_TAIL = np.array(
    [8.0, 5.4, 3.8, 2.9, 2.35, 2.0, 1.75, 1.55, 1.4, 1.3, 1.22, 1.15, 1.1, 1.05, 1.0]
    + [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.54, 0.48, 0.42, 0.35, 0.27]
    + [0.18, 0.08]
)
_BODY = 8  # ...evenly over the values below those...
EDGES = len(_TAIL) + _BODY + 2  # ...and at both ends, where ReLU and ReLU6 pile up.
_SAMPLES = 8  # sampled pixels per image and axis


def sample(
    features: Float[AnyArray, "image height width unit"],
    geometry: bit_masks.Geometry,
    zero: Int[AnyArray, ""],
) -> Float[Array, "image sample unit"]:
    """Returns a lattice of at most 8x8 pixels per image, for `place_edges`."""

    def thin(axis: Axis) -> Axis:
        count = min(_SAMPLES, axis.target)
        keep = (2 * np.arange(count) + 1) * axis.target // (2 * count)
        return dataclasses.replace(
            axis, low=axis.low[keep], high=axis.high[keep], weight=axis.weight[keep]
        )

    rows, columns = thin(geometry.rows), thin(geometry.columns)
    grid = stretch(features, rows, columns, zero)
    values = interpolate(
        jnp.take(grid, rows.low, axis=-3),
        jnp.take(grid, rows.high, axis=-3),
        rows.weight[:, None, None],
        zero,
    )
    return values.reshape(values.shape[0], -1, values.shape[-1])


def samples(geometry: bit_masks.Geometry) -> int:
    """Returns the number of pixels per image that `sample` takes."""
    rows, columns = geometry.rows.target, geometry.columns.target
    return min(_SAMPLES, rows) * min(_SAMPLES, columns)


def place_edges(
    samples: Float[np.ndarray, "sample unit"], quantile: float
) -> Int[np.ndarray, "edge unit"]:
    """Returns edges for every unit, as ascending keys, from sampled pixels.

    Counts are exact for any edges; good ones are dense around the threshold.
    """
    samples = np.array(samples.T, np.float32, order="C")
    if not np.isfinite(samples).all():
        samples = np.nan_to_num(samples)
    samples.sort()  # in place, and faster than along the other axis
    samples = samples.T
    lowest, highest = samples[0], samples[-1]
    # Units that are silent in the sample get the spread typical of the layer.
    spread = float(np.median(highest - lowest)) or 1.0
    highest = np.where(highest > lowest, highest, lowest + np.float32(spread))
    constant = samples[0] == samples[-1]
    ranks = np.clip(_TAIL * quantile, 0, 0.98) * (len(samples) - 1)
    tail = _interpolated(samples, len(samples) - 1 - ranks)
    evenly = np.linspace(0, 1, len(_TAIL) + 1, dtype=np.float32)[:-1, None]
    tail = np.where(constant, lowest + (highest - lowest) * evenly, tail)
    steps = np.linspace(0, 1, _BODY + 1, dtype=np.float32)[1:, None]
    body = lowest + (tail.min(axis=0) - lowest) * steps
    # Pixels equal to the highest value are those above the next float below it.
    just_below = order.from_keys_host(order.to_keys_host(highest) - 1)
    edges = np.concatenate([lowest[None], body, tail, just_below[None]])
    edges = _spread_repeated(np.sort(np.minimum(edges, just_below), axis=0))
    return np.sort(order.to_keys_host(edges), axis=0)


def _spread_repeated(edges):
    """Moves edges that repeat the one below into the gap above it.

    Where a ReLU leaves most pixels at 0, most edges are 0; the threshold is in the gap
    between 0 and the next edge, or 0 itself. The moved edges are denser toward the
    gap's lower end.
    """
    count = len(edges)
    first = np.zeros(edges.shape, int)  # first row with each edge's value
    for row in range(1, count):
        first[row] = np.where(edges[row] == edges[row - 1], first[row - 1], row)
    last, above = np.full(edges.shape, count - 1), edges.copy()
    for row in range(count - 2, -1, -1):
        same = edges[row] == edges[row + 1]
        last[row] = np.where(same, last[row + 1], row)
        above[row] = np.where(same, above[row + 1], edges[row + 1])
    rows = np.arange(count)[:, None]
    part = ((rows - first) / (last - first + 1)).astype(np.float32) ** 2
    return edges + (above - edges) * part


def _interpolated(ordered, positions):
    floor = np.floor(positions).astype(int)
    part = (positions - floor)[:, None].astype(np.float32)
    upper = ordered[np.minimum(floor + 1, len(ordered) - 1)]
    lower = ordered[floor]
    return lower + (upper - lower) * part
