"""Decodes images to pixels with PIL, as the original implementations do.

netdissect and torchvision open a file with PIL and call `convert("RGB")`. For parity,
an EXIF orientation is applied only on request, transparency is dropped (the color
stored under it shows), and only the first frame of an animation counts. One difference:
gray values of more than 8 bits keep their high bits; PIL's conversion would turn most
of them white.
"""

from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data import formats
from jdissect.data.files import opened
from jdissect.data.source import UnreadableImage

RESIZED = 256  # side after the resize, for folders and TFDS (netdissect)
CROPPED = 224  # side after the center crop

_ORIENTATION = 0x0112  # tag of EXIF, TIFF and XMP
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_rgb(
    file: str | BinaryIO, name: str, exif_rotation: bool = False
) -> Image.Image:
    """Decodes an image to 8-bit RGB at its stored size.

    Args:
        file: path, URL, or binary file object with the encoded image; at most
            `files.MAX_BYTES` are read.
        name: name of the image in error messages.
        exif_rotation: rotate by the EXIF orientation. (PIL always applies TIFF's own
            orientation.)

    Returns:
        a loaded PIL image of mode RGB.

    Raises:
        UnreadableImage: not an image or not a regular file, truncated, too large, or
            of a form without a known value range.
        UserError: the object store of a URL cannot be reached.
    """
    path = file if isinstance(file, str) else name
    if formats.is_raw(path):
        raise UnreadableImage(name, formats.reason(path))
    try:
        with opened(file) as content, Image.open(content) as image:
            if image.format in formats.REFUSED:
                raise ValueError(f"{image.format} is not read; convert it to PNG")
            _refuse_bomb(image.size)
            # PIL warns about palettes with transparency, which is dropped anyway.
            image.info.pop("transparency", None)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                rgb = _grey_to_rgb(image)
            else:
                rgb = image.convert("RGB")
            return _upright(rgb, image) if exif_rotation else rgb
    except (MemoryError, UserError):
        raise  # the machine or network failed, not the file
    except Image.UnidentifiedImageError:
        raise UnreadableImage(name, formats.reason(path)) from None
    except Exception as error:
        # PIL's decoders raise all kinds of exceptions for a broken file.
        raise UnreadableImage(name, why(error)) from None


def decode_stored(file: str | BinaryIO, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Returns pixels at the stored size: RGB, 0 .. 255. Raises as `open_rgb`."""
    return np.asarray(open_rgb(file, name))


def decode_cropped(
    file: str | BinaryIO, name: str, smallest: int = 1, exif_rotation: bool = False
) -> UInt8[np.ndarray, "224 224 3"]:
    """Returns pixels in netdissect's geometry: resize to 256x256, center crop 224.

    The resize ignores the aspect ratio and is PIL's antialiased bilinear one
    (netdissect's `Resize((256, 256))`).

    Returns:
        RGB, 0 .. 255.

    Raises:
        UnreadableImage: as `open_rgb`, or a side has fewer than `smallest` pixels.
    """
    return resize_and_crop(open_rgb(file, name, exif_rotation), name, smallest)


def resize_and_crop(
    image: Image.Image, name: str, smallest: int = 1
) -> UInt8[np.ndarray, "224 224 3"]:
    """Returns the pixels of an RGB image as `decode_cropped` does."""
    if min(image.size) < smallest:
        size = f"{image.width}x{image.height} pixels"
        raise UnreadableImage(name, f"{size}, needs at least {smallest}x{smallest}")
    image = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
    near, far = (RESIZED - CROPPED) // 2, (RESIZED + CROPPED) // 2
    return np.asarray(image.crop((near, near, far, far)))


def _refuse_bomb(size: tuple[int, int]) -> None:
    """Rejects images above PIL's size limit; PIL itself only warns up to twice it."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise ValueError(f"{size[0]}x{size[1]} exceeds PIL's limit of {limit} pixels")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Reduces 9- to 16-bit gray to the high byte, as PIL reduces 16-bit color."""
    # 16-bit PNM files are scaled to the full range and, like PNG files before PIL 11,
    # have the 32-bit mode.
    known = image.mode != "I" or image.format in ("PNG", "PPM")
    if image.mode == "F" or not known:
        raise ValueError(f"values of mode {image.mode} have no known range")
    values, bits, inverted = np.asarray(image).astype(np.int64), 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]  # of a TIFF's class
        bits = tags.get(_BITS, (16,))[0]
        inverted = tags.get(_PHOTOMETRIC, 1) == 0
    grey = (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if inverted else grey).convert("RGB")


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Rotates by the EXIF orientation of the original image; EXIF may be garbage."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 0))
    except MemoryError:
        raise
    except Exception:
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def why(error: Exception) -> str:
    """Returns one line for a message, whatever PIL raised."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(" ".join(str(error).split())) or type(error).__name__
