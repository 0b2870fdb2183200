"""The standard augmentation of ImageNet training, on the device, one batch at a time.

Random resized crop and flip as in torchvision, color jitter and lighting as in
CutMix-PyTorch and SaliencyMix. Photographs of several sizes share a batch: each is at
the top left of a common canvas.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

# Weights of red, green and blue in a gray level (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)
# Colors of ImageNet's pixels in [0, 1]: eigenvalues, and eigenvectors with one row per
# channel (Krizhevsky et al., 2012, section 4.1).
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
# Number of draws before the central crop is used.
_TRIES = 10
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)


def standard(
    key: Key[Array, ""],
    pixels: UInt8[Array, "batch height width 3"],
    sizes: Int[Array, "batch 2"],
    *,
    side: int,
    crop: bool = True,
    crop_area: float = 0.08,
    flip: bool = True,
    jitter: float = 0.4,
    lighting: float = 0.1,
) -> Float[Array, "batch side side 3"]:
    """Applies random resized crop, flip, color jitter and lighting, in this order.

    Args:
      key: determines all random choices.
      pixels: RGB on a common canvas.
      sizes: height and width of each image, at the canvas's top left.
      side: side of the result.
      crop: whether to take a random crop; otherwise the whole image is resized, which
        leaves one of side x side unchanged.
      crop_area: smallest share of an image's area that a crop takes.
      flip: whether to mirror images with probability 1/2.
      jitter: largest amount of brightness, contrast and saturation; 0 is none.
      lighting: standard deviation of the lighting's coefficients; 0 is none.

    Returns:
      Values around [0, 1]: jitter and lighting do not clip. Not yet normalized.
    """
    key_crop, key_flip, key_jitter, key_light = jax.random.split(key, 4)
    if crop:
        area = (crop_area, 1.0)
        images = random_resized_crop(key_crop, pixels, sizes, side, area)
    else:
        images = _resize(pixels, jnp.pad(sizes, ((0, 0), (2, 0))), side)
    if flip:
        images = horizontal_flip(key_flip, images)
    if jitter:
        images = color_jitter(key_jitter, images, jitter)
    if lighting:
        images = pca_lighting(key_light, images, lighting)
    return images


def random_resized_crop(
    key: Key[Array, ""],
    pixels: UInt8[Array, "batch height width 3"],
    sizes: Int[Array, "batch 2"],
    side: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, "batch side side 3"]:
    """Takes a random part of each image, resized to side x side as PIL's BILINEAR does.

    torchvision's RandomResizedCrop. Only pixels of the crop count. PIL rounds to 8 bits
    after each axis, this function never does: they differ by at most one level.

    Args:
      key: determines the crops.
      pixels: RGB on a common canvas.
      sizes: height and width of each image, at the canvas's top left.
      side: side of the result.
      scale: the crop's smallest and largest share of the image's area; uniform.
      ratio: its smallest and largest width / height; log-uniform.

    Returns:
      Values in [0, 1].
    """
    return _resize(pixels, _draw_crops(key, sizes, scale, ratio), side)


def horizontal_flip(
    key: Key[Array, ""], images: Float[Array, "batch height width channel"]
) -> Float[Array, "batch height width channel"]:
    """Mirrors each image, left to right, with probability 1/2."""
    flips = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flips, images[:, :, ::-1], images)


def color_jitter(
    key: Key[Array, ""], images: Float[Array, "batch height width 3"], strength: float
) -> Float[Array, "batch height width 3"]:
    """Changes brightness, contrast and saturation, in random order; does not clip.

    Each is x + a (reference - x) with its own a ~ U(-strength, strength). The reference
    is 0 for brightness, the image's mean gray for contrast and its gray image for
    saturation. All are linear in a pixel x, its gray g and the image's mean gray m, and
    so is their composition: p x + q g + r m, with three numbers per image. So the
    pixels are read only twice.
    """
    p, q, r = _combine(*_draw_jitter(key, len(images), strength))
    grey = _to_grey(images)
    batch, height, width, _ = images.shape
    # A matrix product, so that its bits do not depend on the number of devices.
    mean = jnp.einsum(
        "bp,p->b",
        grey.reshape(batch, height * width),
        np.full(height * width, 1 / (height * width), np.float32),
        precision=lax.Precision.HIGHEST,
    )

    def each(values):
        return values[:, None, None, None]

    return each(p) * images + each(q) * grey + each(r * mean)


def pca_lighting(
    key: Key[Array, ""], images: Float[Array, "batch height width 3"], deviation: float
) -> Float[Array, "batch height width 3"]:
    """Adds a random color to each image, along the principal axes of ImageNet's colors.

    Channel i gains sum_j eigenvector[i, j] alpha[j] eigenvalue[j], where alpha[j] is
    normal with standard deviation `deviation` (AlexNet's, Krizhevsky et al., 2012).
    """
    alpha = deviation * jax.random.normal(key, (len(images), 3))
    axes = np.array(_EIGENVECTORS, np.float32) * np.array(_EIGENVALUES, np.float32)
    gain = jnp.matmul(alpha, axes.T, precision=lax.Precision.HIGHEST)
    return images + gain[:, None, None, :]


def _draw_crops(
    key: Key[Array, ""],
    sizes: Int[Array, "batch 2"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Array, "batch 4"]:
    """Draws a crop for each image: top, left, height and width.

    The first of ten draws that fits; if none does, the largest central crop that image
    and ratio bounds allow.
    """
    key_area, key_ratio, key_place = jax.random.split(key, 3)
    full = sizes.astype(jnp.float32)
    shape = (len(sizes), _TRIES)
    share = jax.random.uniform(key_area, shape, minval=scale[0], maxval=scale[1])
    least, most = np.log(ratio)
    logs = jax.random.uniform(key_ratio, shape, minval=least, maxval=most)
    aspect = jnp.exp(logs)
    area = share * full.prod(axis=1, keepdims=True)
    tried = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=-1)
    tried = jnp.round(tried).astype(jnp.int32)
    fits = ((tried > 0) & (tried <= sizes[:, None])).all(axis=-1)
    first = jnp.argmax(fits, axis=1)[:, None, None]
    drawn = jnp.take_along_axis(tried, first, axis=1)[:, 0]
    found = fits.any(axis=1)[:, None]

    # Images that are too tall lose height, those too wide lose width.
    bounds = full[:, ::-1] * jnp.array([1 / ratio[0], ratio[1]])
    central = jnp.minimum(sizes, jnp.round(bounds).astype(jnp.int32))
    taken = jnp.where(found, drawn, central)
    room = sizes - taken
    anywhere = jax.random.randint(key_place, sizes.shape, 0, room + 1)
    corner = jnp.where(found, anywhere, room // 2)
    return jnp.concatenate([corner, taken], axis=1)


def _resize(
    pixels: UInt8[Array, "batch height width 3"],
    boxes: Int[Array, "batch 4"],
    side: int,
) -> Float[Array, "batch side side 3"]:
    """Resizes each image's box (top, left, height, width) to side x side, in [0, 1]."""
    batch, height, width, channels = pixels.shape
    rows = _triangles(boxes[:, 0], boxes[:, 2], side, height)
    columns = _triangles(boxes[:, 1], boxes[:, 3], side, width)
    flat = pixels.reshape(batch, height, width * channels).astype(jnp.float32)
    narrow = jnp.einsum("byh,bhi->byi", rows, flat, precision=lax.Precision.HIGHEST)
    narrow = narrow.reshape(batch, side, width, channels)
    images = jnp.einsum(
        "bxw,bywc->byxc", columns, narrow, precision=lax.Precision.HIGHEST
    )
    return images / 255


def _triangles(
    start: Int[Array, " batch"], length: Int[Array, " batch"], side: int, size: int
) -> Float[Array, "batch side size"]:
    """Returns the weights of `size` input pixels for `side` outputs; rows sum to 1.

    PIL's BILINEAR: the triangle around an output's center extends one source pixel to
    either side, or one output pixel if that is larger. Pixels outside
    start .. start + length - 1 have weight 0.
    """
    step = (length.astype(jnp.float32) / side)[:, None, None]
    centre = (jnp.arange(side) + 0.5)[:, None] * step
    where = jnp.arange(size) + 0.5 - start[:, None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(where - centre) / jnp.maximum(step, 1))
    inside = (where > 0) & (where < length[:, None, None])
    weights = jnp.where(inside, weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _to_grey(
    images: Float[Array, "batch height width 3"],
) -> Float[Array, "batch height width 1"]:
    red, green, blue = (images[..., channel, None] for channel in range(3))
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _draw_jitter(
    key: Key[Array, ""], batch: int, strength: float
) -> tuple[Int[Array, "batch 3"], Float[Array, "batch 3"]]:
    """Draws the order of the three operations for each image, and their amounts."""
    key_order, key_amount = jax.random.split(key)
    order = jnp.argsort(jax.random.uniform(key_order, (batch, 3)), axis=1)
    amounts = jax.random.uniform(
        key_amount, (batch, 3), minval=-strength, maxval=strength
    )
    return order, amounts


def _combine(
    order: Int[Array, "batch 3"], amounts: Float[Array, "batch 3"]
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """Returns p, q, r of `color_jitter`.

    The gray of p x + q g + r m is (p + q) g + r m, its mean gray (p + q + r) m.
    """
    p = jnp.ones_like(amounts[:, 0])
    q: Any = 0.0
    r: Any = 0.0
    for kind, amount in zip(order.T, amounts.T, strict=True):
        contrast = jnp.where(kind == _CONTRAST, amount, 0)
        saturation = jnp.where(kind == _SATURATION, amount, 0)
        keep = 1 - amount
        p, q, r = (
            keep * p,
            keep * q + saturation * (p + q),
            keep * r + contrast * (p + q + r) + saturation * r,
        )
    return p, q, r
