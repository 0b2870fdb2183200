"""Normalizes 8-bit pixels to a network's input; every network has its own numbers."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jdissect.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The normalization (pixel * scale - mean) / std of RGB pixels in 0..255.

    `scale` is one factor; `mean` and `std` have one number per channel, red first, or
    a single number for a network of gray images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float

    def to_json(self) -> dict[str, Any]:
        """Returns a dict of plain numbers and lists that restores exactly."""
        return {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "Preprocessing":
        """Restores a preprocessing from the dict of `to_json`.

        Raises:
          UserError: a key is missing or its value does not have the form above.
        """
        try:
            mean = tuple(float(value) for value in description["mean"])
            std = tuple(float(value) for value in description["std"])
            scale = float(description["scale"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"preprocessing {description!r} lacks numbers for scale, mean and std"
            ) from error
        finite = all(map(math.isfinite, (*mean, *std, scale)))
        if len(mean) not in (1, 3) or len(std) != len(mean) or 0 in std or not finite:
            raise UserError(
                f"preprocessing {description!r} needs mean and std of three channels "
                "(or of one, for gray images), std not 0"
            )
        return cls(mean, std, scale)


# torchvision, timm, CutMix-PyTorch and SaliencyMix
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255)
# For one gray channel: the mean of the three.
GREY = Preprocessing((0.449,), (0.226,), 1 / 255)
# EfficientNet-Lite: (pixel - 127) / 128
LITE = Preprocessing((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0)


def normalize(
    images: UInt8[Array, "*batch height width 3"],
    preprocessing: Preprocessing,
    dtype: str = "float32",
) -> Float[Array, "*batch height width channel"]:
    """Normalizes RGB pixels, in float32, and rounds once to `dtype`. Jittable.

    If `preprocessing` has one channel, the result is one gray channel.
    """
    images = images.astype(jnp.float32)
    if len(preprocessing.mean) == 1:
        images = grey(images)
    images = images * preprocessing.scale
    mean = jnp.asarray(preprocessing.mean, jnp.float32)
    std = jnp.asarray(preprocessing.std, jnp.float32)
    return ((images - mean) / std).astype(jnp.dtype(dtype))


def resized(
    images: Float[Array, "batch height width channel"], shape: tuple[int, int]
) -> Float[Array, "batch new_height new_width channel"]:
    """Resizes normalized images to (height, width), as they are if they have it.

    Bilinear, in float32, and smoothed where images shrink (`jax.image.resize`).
    """
    if images.shape[1:3] == shape:
        return images
    found = jax.image.resize(
        images.astype(jnp.float32),
        (images.shape[0], *shape, images.shape[-1]),
        "bilinear",
        precision=jax.lax.Precision.HIGHEST,
    )
    return found.astype(images.dtype)


def grey(images: Float[Array, "*batch height width 3"]) -> Float[Array, "..."]:
    """Returns the gray levels 0..255 of Pillow's mode 'L' for RGB pixels 0..255.

    They are whole numbers: red, green and blue weigh 0.299, 0.587 and 0.114 in units
    of 1 / 65536. All sums are below 2**24, exact in float32.
    """
    red, green, blue = (images[..., channel : channel + 1] for channel in range(3))
    total = red * 19595 + green * 38470 + blue * 7471 + 32768
    return jnp.floor(total / 65536)
