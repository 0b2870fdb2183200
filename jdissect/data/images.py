"""Encoded images to pixels, with PIL, as the originals do it.

netdissect and torchvision open a file with PIL and `convert("RGB")`, no more. So, for
parity, an EXIF orientation is *not* applied, transparency is dropped (the colour
stored under it shows), and of an animation the first frame counts. One thing differs:
16-bit grey keeps its high byte, where PIL's conversion would turn most of it white.
"""

import io
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jdissect import paths
from jdissect.data.source import UnreadableImage
from jdissect.errors import UserError

RESIZED = 256  # folders and TFDS: the side after the resize (netdissect)
CROPPED = 224  # and after the centre crop


def open_rgb(file: str | BinaryIO, name: str) -> Image.Image:
    """Decodes an image to 8-bit RGB at its stored size.

    Args:
        file: path, URL, or binary file object, of the encoded image.
        name: what to call the image in an error.

    Returns:
        a loaded PIL image of mode RGB.

    Raises:
        UnreadableImage: no image, truncated, too large, or of a form without a
            known value range.
        UserError: the object store of a URL cannot be reached: no fault of the image.
    """
    try:
        with Image.open(opened(file)) as image:
            _refuse_bomb(image.size)
            # PIL warns about palettes with transparency; it is dropped anyway.
            image.info.pop("transparency", None)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                return _grey_to_rgb(image)
            return image.convert("RGB")
    except (MemoryError, UserError):
        raise  # of this machine or its network, not of the file
    except Exception as error:
        # PIL's many decoders answer a broken file with whatever exception they met.
        raise UnreadableImage(name, _reason(error)) from None


def opened(file: str | BinaryIO) -> str | BinaryIO:
    """What PIL can open: the content in the place of a URL."""
    if not isinstance(file, str):
        return file
    if paths.is_remote(file):
        return io.BytesIO(paths.read_bytes(paths.to_path(file)))
    return paths.on_disk(file)


def decode_stored(file: str | BinaryIO, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels at the stored size: RGB, 0 .. 255. Raises as `open_rgb`."""
    return np.asarray(open_rgb(file, name))


def decode_cropped(
    file: str | BinaryIO, name: str, smallest: int = 1
) -> UInt8[np.ndarray, "224 224 3"]:
    """Pixels of netdissect's geometry: resize to 256x256, centre crop 224.

    The resize ignores the aspect ratio and is PIL's bilinear one, which antialiases
    (ORIGINALS section 2, item 1; netdissect's `Resize((256, 256))`).

    Returns:
        RGB, 0 .. 255.

    Raises:
        UnreadableImage: as `open_rgb`; or a side has less than `smallest` pixels.
    """
    image = open_rgb(file, name)
    if min(image.size) < smallest:
        size = f"{image.width}x{image.height} pixels"
        raise UnreadableImage(name, f"{size}, {smallest}x{smallest} are needed")
    image = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
    near, far = (RESIZED - CROPPED) // 2, (RESIZED + CROPPED) // 2
    return np.asarray(image.crop((near, near, far, far)))


def _refuse_bomb(size: tuple[int, int]) -> None:
    """PIL only warns below twice its limit; a probe image has no need to be there."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise ValueError(f"{size[0]}x{size[1]} exceeds PIL's limit of {limit} pixels")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte, as PIL itself reduces 16-bit colour."""
    values = np.asarray(image)
    # Before version 11, PIL gave 16-bit PNGs the 32-bit mode.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"values of mode {image.mode} have no known range")
    return Image.fromarray((values.astype(np.int64) >> 8).astype(np.uint8)).convert(
        "RGB"
    )


def _reason(error: Exception) -> str:
    """One line for a person, whatever PIL raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that PIL can identify"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
