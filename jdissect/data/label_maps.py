"""Reads label maps from PNG files, and resamples them by nearest neighbor."""

from typing import BinaryIO

import numpy as np
from jaxtyping import Int32, Shaped
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.files import opened
from jdissect.data.images import CROPPED, RESIZED, why

# PIL spreads gray values of 2 and 4 bits over 0 .. 255.
_SPREAD = {"L;2": 85, "L;4": 17}
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")


def decode_label_map(
    path: str, shape: tuple[int, int], rgb: str = "", content: BinaryIO | None = None
) -> Shaped[np.ndarray, "height width ..."]:
    """Returns the numbers of a PNG, or its colors.

    The file's size is compared before its pixels are unpacked.

    Args:
        path: path or URL of the PNG, or a name for messages if `content` is given.
        shape: (height, width) that it must have, that of its image.
        rgb: '' if colors are accepted; else why they are not.
        content: the PNG, if it is not a file of its own.

    Returns:
        the gray values or palette indices as stored, of an integer type or bool
        [height, width]; for a mode RGB file uint8[height, width, 3].

    Raises:
        UserError: the file cannot be decoded, or has another size or mode.
    """
    try:
        with (
            opened(content or path) as file,
            Image.open(file, formats=["PNG"]) as image,
        ):
            mode, size = image.mode, (image.height, image.width)
            if size == shape and mode in _NUMBERS:
                spread = _SPREAD.get(str(image.tile[0][3]), 1) if mode == "L" else 1
                return np.asarray(image) // spread if spread > 1 else np.asarray(image)
            if size == shape and mode == "RGB" and not rgb:
                return np.asarray(image)
    except (MemoryError, UserError):
        raise  # the machine or network failed, not the file
    except Image.UnidentifiedImageError:
        raise UserError(f"mask {printable(path)} cannot be decoded: no PNG.") from None
    except Exception as error:
        raise UserError(
            f"mask {printable(path)} cannot be decoded: {why(error)}."
        ) from None
    if size != shape:
        raise UserError(
            f"mask {printable(path)} is {size[0]}x{size[1]} pixels, but its image is "
            f"{shape[0]}x{shape[1]} (height x width)."
        )
    if mode == "RGB":
        raise UserError(f"mask {printable(path)} is RGB; {rgb}.")
    raise UserError(
        f"mask {printable(path)} has PIL mode {mode}; save it as a PNG of 8 or 16 bits "
        "(mode L, P, I;16) or as RGB, without transparency."
    )


def resample_nearest(
    labels: Int32[np.ndarray, "*leading height width"], shape: tuple[int, int]
) -> Int32[np.ndarray, "*leading new_height new_width"]:
    """Resamples the last two axes to `shape` by nearest neighbor.

    Target row y of S takes source row floor((y + 0.5) * H / S) of H, in integer
    arithmetic.
    """
    rows, columns = (
        _nearest(target, size)
        for target, size in zip(shape, labels.shape[-2:], strict=True)
    )
    return labels[..., rows[:, None], columns]


def crop_nearest(
    labels: Shaped[np.ndarray, "*leading height width"],
) -> Shaped[np.ndarray, "*leading 224 224"]:
    """Gives label maps the geometry of `images.decode_cropped`.

    Row y of the crop is row y + 16 of the image resized to 256, whose center lies at
    (y + 16.5) * H / 256 in the stored image: the label of the row that contains it.
    """
    near, far = (RESIZED - CROPPED) // 2, (RESIZED + CROPPED) // 2
    rows, columns = (_nearest(RESIZED, size)[near:far] for size in labels.shape[-2:])
    return labels[..., rows[:, None], columns]


def _nearest(target: int, size: int) -> np.ndarray:
    """Returns for each of `target` rows the row of `size` at its center."""
    return (2 * np.arange(target) + 1) * size // (2 * target)
