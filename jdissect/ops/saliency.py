"""Computes fine-grained static saliency of 8-bit images, bit for bit as OpenCV does.

Montabone & Soto, "Human detection using a mobile platform and novel features derived
from a visual saliency mechanism" (2010): a pixel is salient if it differs from the mean
of its surroundings, at six scales. This module matches OpenCV's
`StaticSaliencyFineGrained` to the bit, but with integers: its floats are equivalent.

- Center c against the mean (s - c) / (A - 1) of the other A - 1 pixels of a window with
  sum s. The magnitude |c - mean| is |c A - s| / (A - 1). A quotient that is not whole
  differs from a whole number by at least 1 / (A - 1) > 1.9e-5 (a window has at most
  224 x 224 pixels), and float32 errs by at most 1.2e-5 on 0..255. So the truncated
  float is the integer quotient.
- Scaling by 255 a / b, with a / b rounded to float32 first and b <= 6 * 255, is the
  integer quotient for the same reason, unless b divides 255 a. Then a / b = k / 255,
  whose binary digits repeat those of k with period eight. A float's 24 digits are three
  periods, so the remainder starts like k itself, with a one: rounding is upwards, and
  the truncated product is k. Above one (k > 255), one digit goes to the whole part, and
  the remainder starts with the last bit of k - 255: an odd k is rounded downwards, and
  becomes k - 1.

Where OpenCV does round, so does this module: its integral image is float32, each row
added to the sum of those above, and a window's sum is two corners plus, two minus, in
this order. Entries are exact up to 2^24; the sum of two corners is rounded beyond that,
which bright images of 224 x 224 reach. The result is a whole number, and as no window
exceeds 224 * 224 * 255 < 2^24, float32 represents all that follows exactly.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jdissect.base.arrays import AnyArray

# Half the sides of the windows, in pixels.
NEIGHBOURHOODS = (12, 24, 48, 28, 56, 112)
# OpenCV's weights of red, green and blue in a gray level, in units of 1 / 2^15.
_GREY = (9798, 19235, 3735)


def fine_grained(
    images: UInt8[AnyArray, "batch height width 3"],
) -> UInt8[Array, "batch height width"]:
    """Returns the saliency of every pixel; jittable, any height and width.

    Equal to OpenCV's map (given its channel order, BGR) up to two million pixels;
    beyond, OpenCV's rounding overflows 8 bits. An image's map does not depend on the
    other images.

    Args:
      images: RGB, 0..255.

    Returns:
      0..255. Zero if nothing stands out by a level, as in a constant image, where the
      original divides by zero. As in the original, a pixel that is strong both above
      and below its surroundings, at different scales, can wrap around 8 bits.

    Source: OpenCV contrib, staticSaliencyFineGrained.cpp.
    """
    on, off = _contrasts(_blur(_blur(_grey(images))))
    return _to_bytes(_stretch(on) + _stretch(off))


def _grey(
    images: UInt8[AnyArray, "batch height width 3"],
) -> Int[Array, "batch height width"]:
    red, green, blue = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    weighted = red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
    return (weighted + (1 << 14)) >> 15


def _blur(grey: Int[Array, "batch height width"]) -> Int[Array, "batch height width"]:
    """Applies [1 2 1] / 4 along both axes, rounded once; mirrors at the border."""
    for axis in (1, 2):
        size = grey.shape[axis]
        second, last = min(1, size - 1), max(size - 2, 0)
        padded = jnp.concatenate(
            [
                lax.slice_in_dim(grey, second, second + 1, axis=axis),
                grey,
                lax.slice_in_dim(grey, last, last + 1, axis=axis),
            ],
            axis,
        )
        before = lax.slice_in_dim(padded, 0, size, axis=axis)
        after = lax.slice_in_dim(padded, 2, size + 2, axis=axis)
        grey = before + 2 * grey + after
    return (grey + 8) >> 4


def _contrasts(
    grey: Int[Array, "batch height width"],
) -> tuple[Float[Array, "batch height width"], Float[Array, "batch height width"]]:
    """Sums over the scales how far a pixel is above and below its surroundings."""
    height, width = grey.shape[1:]
    # Repeated edges let a window clipped by the image read like any other.
    margins = [min(max(NEIGHBOURHOODS), size) for size in (height, width)]
    around = [(margin, margin) for margin in margins]
    integral = jnp.pad(_integral(grey), [(0, 0), *around], mode="edge")

    def shifted(down, right):
        top, left = margins[0] + down, margins[1] + right
        return integral[:, top : top + height, left : left + width]

    centre = grey.astype(jnp.float32)
    on = off = jnp.zeros_like(centre)
    for half in NEIGHBOURHOODS:
        rows, columns = min(half, height), min(half, width)
        total = shifted(rows + 1, columns + 1) + shifted(1 - rows, 1 - columns)
        total = total - shifted(rows + 1, 1 - columns) - shifted(1 - rows, columns + 1)
        area = np.outer(_extent(height, rows), _extent(width, columns))
        difference = centre * area - total
        step = _quotient(jnp.abs(difference), np.maximum(area - 1, 1))
        on += jnp.where(difference > 0, step, 0)
        off += jnp.where(difference < 0, step, 0)
    return on, off


def _integral(
    grey: Int[Array, "batch height width"],
) -> Float[Array, "batch height+1 width+1"]:
    """Entry (y, x) sums rows < y and columns < x, rounded after each row."""
    batch, height, width = grey.shape
    sums = jnp.cumsum(grey, axis=2)
    if 255 * height * width <= 1 << 24:  # exact, so in any order
        sums = jnp.cumsum(sums, axis=1).astype(jnp.float32)
    else:

        def add(above, row):
            both = above + row
            return both, both

        rows = jnp.moveaxis(sums, 1, 0).astype(jnp.float32)
        sums = lax.scan(add, jnp.zeros((batch, width), jnp.float32), rows)[1]
        sums = jnp.moveaxis(sums, 0, 1)
    return jnp.pad(sums, ((0, 0), (1, 0), (1, 0)))


def _extent(size: int, half: int) -> Float[np.ndarray, " size"]:
    """Counts the pixels y - half + 1 .. y + half inside the image, for every y."""
    place = np.arange(size)
    ends = np.minimum(place + half + 1, size) - np.maximum(place - half + 1, 0)
    return ends.astype(np.float32)


def _stretch(
    contrast: Float[Array, "batch height width"],
) -> Float[Array, "batch height width"]:
    """Scales each map so that its maximum is 255, and truncates."""
    most = contrast.max(axis=(1, 2), keepdims=True)
    return _quotient(255 * contrast, jnp.maximum(most, 1))


def _to_bytes(
    total: Float[AnyArray, "*pixel"],
) -> UInt8[Array, "*pixel"]:
    """Scales whole numbers of 0..510 by 255 / 255: odd k above 255 become k - 1."""
    total = total.astype(jnp.int32)
    return jnp.where(total > 255, total & 0xFE, total).astype(jnp.uint8)


def _quotient(dividend, divisor):
    """Returns floor(dividend / divisor) of whole, nonnegative float32 below 2^24.

    Exact for quotients up to 2^20, even where a device's division is not: the estimate
    is off by at most one, and the remainder corrects it.
    """
    estimate = jnp.floor(dividend * (1 / divisor))
    rest = dividend - estimate * divisor
    one = jnp.float32(1)
    return estimate + jnp.where(rest >= divisor, one, jnp.where(rest < 0, -one, 0))
