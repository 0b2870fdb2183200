"""Fine-grained static saliency of 8-bit images, as OpenCV computes it.

Montabone & Soto, "Human detection using a mobile platform and novel features derived
from a visual saliency mechanism" (2010): a pixel is salient if it differs from the mean
of its surroundings, at six scales. OpenCV's `StaticSaliencyFineGrained` is followed to
the bit, but in whole numbers: its floats turn out to say what integers say.

- Centre c against the mean (s - c) / (A - 1) of the other A - 1 pixels of a window with
  sum s. The magnitude |c - mean| is |c A - s| / (A - 1). A quotient that is not whole
  is at least 1 / (A - 1) > 1.9e-5 away from a whole number (a window has 224 x 224
  pixels at most), and float32 errs by 1.2e-5 at most on 0..255. So the truncated float
  is the quotient of integers.
- Scaling by 255 a / b, with a / b rounded to float32 first and b <= 6 * 255, is the
  quotient of integers for the same reason, but where b divides 255 a. Then a / b =
  k / 255, whose binary digits are those of k, eight a period. The 24 digits of a float
  are three periods, so that what is cut off starts like k itself, with a one: rounding
  is upwards, and the truncated product is k. Beyond one (k > 255) a digit goes to the
  whole part, and what is cut off starts with the last bit of k - 255: an odd k is
  rounded downwards, and becomes k - 1.

Where OpenCV does round, so does this module: its integral image is float32, a row added
to the sum of those above, and a window's sum is two corners plus, two minus, in this
order. Entries are exact up to 2^24, and the sum of two corners is rounded beyond, which
bright images of 224 x 224 reach. What results is a whole number, and as no window has
more than 224 * 224 * 255 < 2^24, float32 holds all that follows exactly.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

# Half the sides of the windows, in pixels.
NEIGHBOURHOODS = (12, 24, 48, 28, 56, 112)
# OpenCV's weights of red, green and blue in a grey level, in 1 / 2^15.
_GREY = (9798, 19235, 3735)


def fine_grained(
    images: UInt8[Array, "batch height width 3"],
) -> UInt8[Array, "batch height width"]:
    """The saliency of every pixel; jittable, any height and width.

    Equal to OpenCV's map (given its channel order, BGR) up to two million pixels, where
    OpenCV's rounding comes to overflow 8 bits. An image's map does not depend on the
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
    images: UInt8[Array, "batch height width 3"],
) -> Int[Array, "batch height width"]:
    red, green, blue = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    weighted = red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
    return (weighted + (1 << 14)) >> 15


def _blur(grey: Int[Array, "batch height width"]) -> Int[Array, "batch height width"]:
    """[1 2 1] / 4 along both axes, rounded once; the border pixel is not repeated."""
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
    """Sums over the scales of how far a pixel is above and below its surroundings."""
    height, width = grey.shape[1:]
    # The edges are repeated, so that a window clipped by the image reads as any other.
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
    """Entry (y, x) is the sum of rows < y and columns < x, rounded a row at a time."""
    batch, height, width = grey.shape
    sums = jnp.cumsum(grey, axis=2)
    if 255 * height * width <= 1 << 24:  # nothing to round: in any order
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
    """How many pixels y - half + 1 .. y + half lie in the image, for every y."""
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
    total: Float[Array, "batch height width"],
) -> UInt8[Array, "batch height width"]:
    """Whole numbers of 0..510 scaled by 255 / 255: of odd ones above 255, k - 1."""
    total = total.astype(jnp.int32)
    return jnp.where(total > 255, total & 0xFE, total).astype(jnp.uint8)


def _quotient(dividend, divisor):
    """floor(dividend / divisor) of whole, not negative float32 below 2^24.

    Exact for quotients up to 2^20, also where a device's division is not: the estimate
    is off by one at most and the remainder tells.
    """
    estimate = jnp.floor(dividend * (1 / divisor))
    rest = dividend - estimate * divisor
    one = jnp.float32(1)
    return estimate + jnp.where(rest >= divisor, one, jnp.where(rest < 0, -one, 0))
