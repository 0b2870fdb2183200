"""Upsamples bilinearly from the feature grid to the mask grid.

Source: netdissect 2020, `upsample.py`: half-pixel centers, zeros outside the grid.
Target y samples the feature coordinate (y + 0.5) * h / H - 0.5; a map of size 1 along
an axis is constant along it.

The zeros take part in the interpolation, so a unit with only negative activations is
greatest at the border and fires there, as in the original, which also pads with zeros.
(A map on the mask's own grid is not upsampled and has no border.)

Thresholds and masks must see the *same* pixels, to the last bit, or an exact threshold
is not exact. So `interpolate` alone defines a pixel: along x first, then along y, each
as a + (b - a) * w in float32 with every operation rounded. Depending on the context,
compilers contract a product and a sum into one rounding; `fence` prevents that. A pixel
never leaves the range of the grid points around it (every rounding is monotone, and
w <= 1 - 1/(2H)).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdissect.base.arrays import AnyArray


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """Maps the `size` grid points of one axis to `target` pixels.

    Attributes:
      pad: number of zeros before and after the grid.
      low, high: int32[target], the two points of the padded grid around each pixel.
      weight: float32[target], each pixel's distance from `low`, in [0, 1).
    """

    size: int
    target: int
    pad: int
    low: Int[np.ndarray, " target"]
    high: Int[np.ndarray, " target"]
    weight: Float[np.ndarray, " target"]


@functools.cache
def plan_axis(size: int, target: int) -> Axis:
    """Returns an axis's points and weights, in exact integers except one division."""
    if size < 1 or target < 1:
        raise ValueError(f"sizes must be positive, got {size} -> {target}")
    pixels = np.arange(target)
    if size == 1:  # constant
        pad, low, weight = 0, np.zeros(target, np.int64), np.zeros(target)
    elif size == target:  # the grid itself: no neighbor contributes
        pad, low, weight = 0, pixels, np.zeros(target)
    else:
        # (y + 0.5) * size / target - 0.5 as a fraction over 2 * target.
        numerator = (2 * pixels + 1) * size - target
        floor = numerator // (2 * target)
        pad, low = 1, floor + 1  # the pad comes first
        weight = (numerator - floor * 2 * target) / (2 * target)
    low = low.astype(np.int32)  # also in JAX's 64-bit mode
    return Axis(size, target, pad, low, low + pad, weight.astype(np.float32))


def fence(
    values: Float[AnyArray, "..."], zero: Int[AnyArray, ""]
) -> Float[Array, "..."]:
    """Returns the same values, opaque to the compiler.

    Args:
      values: float32.
      zero: int32 0 that is an *argument* of the compiled program. Exclusive-or with it
        changes nothing, but the compiler cannot know that.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jax.lax.bitcast_convert_type(bits ^ zero, jnp.float32)


def interpolate(a, b, weight, zero):
    """Returns a + (b - a) * weight in float32, each operation rounded by itself."""
    return a + fence((b - a) * weight, zero)


def padded(
    features: Float[AnyArray, "*batch height width unit"], rows: Axis, columns: Axis
) -> Float[Array, "*batch padded_height padded_width unit"]:
    """Returns the grid padded with zeros, float32."""
    lead = [(0, 0)] * (features.ndim - 3)
    pads = [*lead, (rows.pad, rows.pad), (columns.pad, columns.pad), (0, 0)]
    return jnp.pad(features.astype(jnp.float32), pads)


def stretch(
    features: Float[AnyArray, "*batch height width unit"],
    rows: Axis,
    columns: Axis,
    zero: Int[AnyArray, ""],
) -> Float[Array, "*batch padded_height target_width unit"]:
    """Upsamples along x only, on the zero-padded grid."""
    grid = padded(features, rows, columns)
    if columns.size == len(columns.low) == columns.target:  # a + (a - a) * 0
        return grid
    left = jnp.take(grid, columns.low, axis=-2)
    right = jnp.take(grid, columns.high, axis=-2)
    return interpolate(left, right, columns.weight[:, None], zero)


@functools.partial(jax.jit, static_argnames="shape")
def _upsample(features, zero, *, shape):
    rows = plan_axis(features.shape[-3], shape[0])
    columns = plan_axis(features.shape[-2], shape[1])
    grid = stretch(features, rows, columns, zero)
    above = jnp.take(grid, rows.low, axis=-3)
    below = jnp.take(grid, rows.high, axis=-3)
    return interpolate(above, below, rows.weight[:, None, None], zero)


def upsample(
    features: Float[AnyArray, "*batch height width unit"], shape: tuple[int, int]
) -> Float[Array, "*batch target_height target_width unit"]:
    """Returns every pixel of the upsampled maps, float32.

    Args:
      features: channels-last maps of any float type.
      shape: (target_height, target_width), any sizes.
    """
    return _upsample(features, np.int32(0), shape=tuple(shape))
