"""Decoding and geometry: against an own resize, and files of every odd kind."""

import io
import json

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


def test_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    file = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert images.decode_stored(file, "x").shape == (10, 20, 3)


def test_first_frame_counts():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (images.decode_stored(file, "x") == (255, 0, 0)).all()


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


@pytest.mark.parametrize(("what", "data", "reason"), broken_files())
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
