"""Turns a caller's photographs into the pixels that networks and segmenters take."""

from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.images import CROPPED, RESIZED

_RANGELESS = ("I", "F")  # modes whose values have no known range
_CHANNELS = (1, 3)


class Geometry:
    """Resizes and crops PIL images to the size of a network's own.

    An image of that size is taken as it is. Others are resized to 256/224 of it, and
    their center is taken: for 224 pixels as the source 'folder' does.

    Args:
      side: side of the network's own images in pixels.
    """

    def __init__(self, side: int):
        self._side = side
        self._resized = round(side * RESIZED / CROPPED)
        near = (self._resized - side) // 2
        self._crop = slice(near, near + side)

    def pixels(self, image: Image.Image, what: str) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the RGB pixels of an image.

        Raises:
          UserError: the image is damaged, or of a mode without a known range.
        """
        if image.mode.startswith(_RANGELESS):
            raise UserError(
                f"{what} is a PIL image of mode {image.mode}, whose values have no "
                "known range; convert it with image.convert('RGB')"
            )
        try:
            rgb = image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # of its decoder
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{what} cannot be read: {reason}") from None
        if self._fits(rgb.size):
            return np.asarray(rgb)
        rgb = rgb.resize((self._resized,) * 2, Image.Resampling.BILINEAR)
        return np.asarray(rgb)[self._crop, self._crop]

    def mask(
        self, mask: Shaped[np.ndarray, "*maps height width"], image: Any, what: str
    ) -> Shaped[np.ndarray, "*maps h w"]:
        """Returns the label maps of an image's center, by nearest neighbor.

        Args:
          mask: label maps on the image's own grid.
          image: the PIL image.
          what: name of the mask, for messages.

        Raises:
          UserError: the mask is of another size than the image.
        """
        if self._fits(image.size):
            return mask
        if mask.shape[-2:] != image.size[::-1]:
            height, width = mask.shape[-2:]
            raise UserError(
                f"{what} is {height}x{width}, but its image {image.height}x"
                f"{image.width} pixels; they must cover the same pixels"
            )
        kept = np.arange(self._crop.start, self._crop.stop)
        rows, columns = (
            (2 * kept + 1) * size // (2 * self._resized) for size in mask.shape[-2:]
        )
        return mask[..., rows[:, None], columns]

    def _fits(self, size: tuple[int, int]) -> bool:
        return size == (self._side, self._side)


def as_pixels(
    images: Shaped[np.ndarray, "image ..."], what: str
) -> UInt8[np.ndarray, "image height width 3"]:
    """Returns images as 8-bit RGB, channels last.

    Args:
      images: [image, height, width], or with one or three channels, last or first;
        integers 0 .. 255, or floats 0 .. 1, which are rounded to 8 bits.
      what: name of the images, for messages.

    Raises:
      UserError: they are neither, such as normalized ones.
    """
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[-1] not in _CHANNELS:
        images = np.moveaxis(images, 1, -1)
    if images.ndim != 4 or images.shape[-1] not in _CHANNELS:
        raise UserError(
            f"{what} is {images.dtype}{list(shape)}; it must be pixels [images, "
            "height, width, 3], or with channels first"
        )
    if images.dtype != np.uint8 and images.size:
        low, high = float(images.min()), float(images.max())
        whole = images.dtype.kind in "iu"
        if not 0 <= low <= high <= (255 if whole else 1):
            raise UserError(
                f"{what} has values from {low:.3g} to {high:.3g}; it must be pixels, "
                "0 to 255 as integers or 0 to 1 as floats, not normalized"
            )
        scale = 1 if whole else 255
        images = np.rint(images.astype(np.float32) * scale).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
