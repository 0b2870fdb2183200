"""Decoding and geometry: against an own resize, and files of every odd kind."""

import contextlib
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from jdissect.data import images
from jdissect.data.source import UnreadableImage


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


def triangle_weights(size, target):
    """Rows of weights of an antialiased bilinear resize, in float64."""
    scale = size / target
    support = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(300, 500), (256, 256), (100, 40), (1, 1)])
def test_geometry_against_a_triangle_filter(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    ours = images.decode_cropped(encoded(Image.fromarray(pixels), "PNG"), "x")
    rows, columns = (triangle_weights(size, 256) for size in shape)
    wide = np.einsum("yh,hwc->ywc", rows[16:240], pixels)
    theirs = np.einsum("xw,ywc->yxc", columns[16:240], wide)
    assert ours.shape == (224, 224, 3)
    assert ours.dtype == np.uint8
    # PIL rounds to 8 bits after each axis.
    assert np.abs(ours - theirs).max() <= 1.01


def test_modes():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    as_rgb = np.repeat(grey[..., None], 3, -1)

    def decode(image, form="PNG", **options):
        return images.decode_stored(encoded(image, form, **options), "x")

    np.testing.assert_array_equal(decode(Image.fromarray(grey)), as_rgb)
    wide = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    np.testing.assert_array_equal(decode(wide), as_rgb)
    np.testing.assert_array_equal(decode(wide, "TIFF"), as_rgb)
    bits = Image.fromarray(np.eye(3, dtype=bool))
    np.testing.assert_array_equal(decode(bits)[..., 1], 255 * np.eye(3))
    palette = Image.fromarray(as_rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(palette), as_rgb)
    cmyk = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    np.testing.assert_array_equal(
        decode(cmyk, "TIFF"), np.full((2, 2, 3), (0, 255, 255))
    )


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :, 3] = 255
    for image in (
        Image.fromarray(rgba),
        Image.fromarray(rgba[..., [0, 3]]),  # grey and alpha
    ):
        pixels = images.decode_stored(encoded(image, "PNG"), "x")
        assert (pixels[..., 0] == 200).all()
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    pixels = images.decode_stored(encoded(palette, "PNG", transparency=b"\0\0"), "x")
    assert (pixels == (4, 5, 6)).all()


# What an EXIF orientation asks for, of rows and columns.
UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
    0: lambda pixels: pixels,  # no orientation
    99: lambda pixels: pixels,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_where_it_is_asked_for(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(images.decode_stored(file, "x"), pixels)
    upright = images.open_rgb(file, "x", exif_rotation=True)
    np.testing.assert_array_equal(upright, UPRIGHT[orientation](pixels))


def test_cropped_photographs_are_turned_before_they_are_resized():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    turned = encoded(Image.fromarray(np.rot90(pixels, -1)), "PNG")
    file = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(
        images.decode_cropped(file, "x", exif_rotation=True),
        images.decode_cropped(turned, "x"),
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_that_is_garbage_turns_nothing(exif):
    file = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert images.open_rgb(file, "x", exif_rotation=True).size == (20, 10)


def test_first_frame_counts():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (images.decode_stored(file, "x") == (255, 0, 0)).all()


def test_grey_of_more_than_eight_bits():
    """High bytes, whatever the file says of the range."""
    values = np.array([[0, 255, 256, 4095, 30000, 65535]])
    header = b"P5 6 1 65535\n"
    pgm = io.BytesIO(header + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(images.decode_stored(pgm, "x")[..., 1], values >> 8)
    # 12 bits in TIFF: PIL neither writes nor scales them.
    numbers = [0x012, 0xABC, 0xFFF, 0x800]
    bits = "".join(f"{number:012b}" for number in numbers)
    data = int(bits, 2).to_bytes(6, "big")

    def tiff(bits, photometric, data, width):
        tags = [
            *((256, 3, width), (257, 3, 1), (258, 3, bits), (259, 3, 1)),
            *((262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 3, 1)),
            (279, 4, len(data)),
        ]
        table = b"".join(struct.pack("<HHII", t, kind, 1, v) for t, kind, v in tags)
        start = struct.pack("<4sI", b"II*\0", 8 + len(data))
        count = struct.pack("<H", len(tags))
        return io.BytesIO(start + data + count + table + bytes(4))

    found = images.decode_stored(tiff(12, 1, data, 4), "x")[0, :, 0]
    assert found.tolist() == [0x01, 0xAB, 0xFF, 0x80]
    # White is zero.
    data = np.array([0, 0xABCD, 0xFFFF], "<u2").tobytes()
    found = images.decode_stored(tiff(16, 0, data, 3), "x")[0, :, 0]
    assert found.tolist() == [255, 255 - 0xAB, 0]


@pytest.mark.parametrize(
    ("mode", "form", "colour", "rgb"),
    [
        ("1", "PNG", 1, (255, 255, 255)),
        ("L", "JPEG", 90, (90, 90, 90)),
        ("LA", "PNG", (90, 0), (90, 90, 90)),
        ("RGBA", "WEBP", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", "ICO", (10, 20, 30, 255), (10, 20, 30)),
        ("CMYK", "JPEG", (0, 255, 255, 0), (254, 0, 0)),
        ("YCbCr", "TIFF", (90, 128, 128), (90, 90, 90)),
        ("LAB", "TIFF", (90, 128, 128), (83, 83, 83)),  # L* = 35.3
    ],
)
def test_modes_that_files_have(mode, form, colour, rgb):
    options = {"lossless": True} if form == "WEBP" else {}
    file = encoded(Image.new(mode, (16, 16), colour), form, **options)
    found = images.decode_stored(file, "x")
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - rgb).max() <= 1


def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def test_compressed_text_that_is_too_long():
    """A few thousand bytes of a PNG that would be 100 MB of text, or of a profile."""
    whole = encoded(Image.new("RGB", (4, 4), "red"), "PNG").getvalue()
    bomb = zlib.compress(bytes(100_000_000))
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0")):
        data = whole[:33] + chunk(kind, head + bomb) + whole[33:]
        tracemalloc.start()
        try:
            with contextlib.suppress(UnreadableImage):
                images.decode_stored(io.BytesIO(data), "x")
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


def test_what_must_not_be_loaded():
    """PIL would have Ghostscript run the program that an EPS file is."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(UnreadableImage, match="EPS is not read; convert it to PNG"):
        images.decode_stored(io.BytesIO(eps), "x.jpg")


def test_a_raw_file_is_not_read_by_its_preview(tmp_path):
    """A camera's raw file is a TIFF file whose first picture is a small preview."""
    path = tmp_path / "a.NEF"
    Image.new("RGB", (160, 120)).save(path, "TIFF")
    with pytest.raises(UnreadableImage, match="NEF is a camera raw file; develop"):
        images.decode_stored(str(path), "a.NEF")


def broken_files():
    jpeg = encoded(
        Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        ),
        "JPEG",
    ).getvalue()
    yield "empty", b"", "identify"
    yield "text", b"hello", "identify"
    yield "truncated", jpeg[: len(jpeg) // 2], "truncated"
    yield "header", jpeg[:20], "identify|truncated|end|Truncated"
    floats = encoded(Image.new("F", (2, 2)), "TIFF").getvalue()
    yield "floats", floats, "mode F have no known"
    yield (
        "integers",
        encoded(Image.new("I", (2, 2)), "TIFF").getvalue(),
        "mode I have no known",
    )


@pytest.mark.parametrize(("what", "data", "reason"), list(broken_files()))
def test_unreadable(what, data, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        images.decode_cropped(io.BytesIO(data), what)
    assert caught.value.name == what
    assert "\n" not in caught.value.reason


def test_bombs_are_errors_where_pil_only_warns(monkeypatch):
    file = encoded(Image.new("RGB", (40, 30)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(UnreadableImage, match="40x30 exceeds"),
    ):
        images.decode_stored(file, "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="could be decompression bomb"):
        images.decode_stored(file, "x")


def test_missing_file(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        images.decode_stored(str(tmp_path / "gone.jpg"), "gone.jpg")


def test_against_the_originals(golden):
    """The images that the original pipeline resized and cropped, to the bit."""
    names = json.loads((golden / "images.json").read_text())
    theirs = np.load(golden / "resnet50.npz")["images"]
    assert 0 < len(theirs) <= len(names)
    for name, pixels in zip(names, theirs, strict=False):
        ours = images.decode_cropped(str(golden / "images" / name), name)
        np.testing.assert_array_equal(ours, pixels)
