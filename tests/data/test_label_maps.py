"""Label maps from PNG files, and that they stay aligned with their image's pixels."""

import re
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.images import resize_and_crop
from jdissect.data.label_maps import crop_nearest, decode_label_map

NUMBERS = np.array([[0, 1, 2], [3, 1, 0]])
SHAPE = (2, 3)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (224, 224), (256, 100), (513, 97)])
def test_the_label_at_the_center_of_each_pixel(size):
    labels = np.random.default_rng(0).integers(0, 99, (2, *size), np.int32)
    ours = crop_nearest(labels)
    assert ours.shape == (2, 224, 224) and ours.dtype == np.int32
    # The centers of the crop's pixels, in pixels of the stored image.
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in size
    )
    np.testing.assert_array_equal(ours, labels[:, rows][:, :, columns])


@pytest.mark.parametrize("side", [41, 100, 256, 333, 700])
def test_an_edge_is_at_the_same_place_in_pixels_and_labels(side):
    """PIL's filter is symmetric: a pixel is half bright where its center is on it."""
    for edge in (side // 3, side // 2, 5 * side // 7):
        labels = np.zeros((1, 30, side), np.int32)
        labels[..., edge:] = 1
        image = Image.fromarray((200 * labels[0]).astype(np.uint8)).convert("RGB")
        pixels = resize_and_crop(image, "x")[..., 0].astype(int)
        ours = crop_nearest(labels)[0]
        assert 0 < ours.sum() < ours.size
        np.testing.assert_array_equal(
            (pixels > 100)[pixels != 100], ours[pixels != 100] == 1
        )
        # The same for rows.
        turned = resize_and_crop(image.transpose(Image.Transpose.TRANSPOSE), "x")
        np.testing.assert_array_equal(
            turned[..., 0] > 100,
            crop_nearest(labels.swapaxes(1, 2))[0] & (pixels.T != 100),
        )


def save(path, mode, numbers=NUMBERS):
    if mode == "P":
        image = Image.fromarray(numbers.astype(np.uint8))
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    elif mode == "1":
        image = Image.fromarray(numbers > 0)
    elif mode.startswith("I"):
        image = Image.fromarray(numbers.astype(np.uint16))
    else:
        image = Image.fromarray(numbers.astype(np.uint8))
    image.save(path)
    return str(path)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_numbers_are_read_as_stored(tmp_path, mode):
    expected = {"1": NUMBERS > 0, "I;16": 300 * NUMBERS}.get(mode, NUMBERS)
    path = save(tmp_path / "x.png", mode, expected)
    with Image.open(path) as image:
        assert image.mode == mode
    np.testing.assert_array_equal(decode_label_map(path, SHAPE), expected)


@pytest.mark.parametrize(("bits", "largest"), [(2, 3), (4, 15)])
def test_gray_of_few_bits_is_not_spread_over_the_range(tmp_path, bits, largest):
    """As ImageMagick writes small numbers; Pillow returns 85 or 17 times as much."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    numbers = np.array([[0, 1, 2, largest]])
    row = 0
    for number in numbers[0]:
        row = row << bits | int(number)
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + row.to_bytes(4 * bits // 8, "big")))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(
        decode_label_map(str(tmp_path / "x.png"), (1, 4)), numbers
    )


def test_colors(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(decode_label_map(str(path), SHAPE), pixels)
    with pytest.raises(UserError, match=r"x\.png is RGB; the table has no colors\.$"):
        decode_label_map(str(path), SHAPE, "the table has no colors")


def test_refusals(tmp_path):
    path = tmp_path / "x.png"

    def refused(message, shape=SHAPE):
        with pytest.raises(UserError, match="^mask " + re.escape(str(path))) as caught:
            decode_label_map(str(path), shape)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    Image.new("RGBA", (3, 2)).save(path)
    refused("has PIL mode RGBA; save it as a PNG of 8 or 16 bits")
    refused("is 2x3 pixels, but its image is 3x2 (height x width)", (3, 2))
    Image.new("L", (3, 2)).save(path, format="JPEG")
    refused("cannot be decoded: no PNG.")
    Image.new("L", (300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    refused("cannot be decoded", (200, 300))
    path.unlink()
    refused("cannot be decoded: No such file or directory")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A file of a few kilobytes that claims gigabytes: its size is compared first."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = save(tmp_path / "x.png", "L", np.zeros((3000, 3000)))

    def unpack(*_):
        raise AssertionError("unpacked")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", unpack)
    with pytest.raises(UserError, match="is 3000x3000 pixels, but its image is 2x3"):
        decode_label_map(path, SHAPE)
