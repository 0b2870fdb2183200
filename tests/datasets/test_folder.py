"""The source 'folder': which files it takes, in which order, under which names."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.loader import batches
from jdissect.datasets import open_source


def test_takes_images_only_in_byte_order(tmp_path, config, save_image):
    for name in ("b.jpg", "a/z.PNG", "a.jpeg", "B.Jpg", "a/.hidden/x.png", ".x.png"):
        save_image(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(config("folder", tmp_path))
    assert source.names == ("B.Jpg", "a.jpeg", "a/z.PNG", "b.jpg")
    assert source.image_shape == (224, 224)
    assert source.annotations is None
    example = source.read(2)
    assert example.pixels.shape == (224, 224, 3)
    assert example.labels is None
    assert example.annotated is None
    first = open_source(config("folder", tmp_path, num_images=2))
    assert first.names == source.names[:2]
    assert len(open_source(config("folder", tmp_path, num_images=9)).names) == 4


READABLE = ("a.JPG", "b.jfif", "c.JPE", "d.jpg?w=300&x", "e.png_large", "f.psd.png")
NAMES = {
    "g.HEIC": "HEIC is not read by Pillow; convert it to JPEG or PNG, for example with",
    "h.heif": "HEIF is not read by Pillow; convert",
    "i.Cr2": "CR2 is a camera raw file; develop it into JPEG, PNG or TIFF",
    "j.dng": "DNG is a camera raw file",
    "k.jxl": "JXL is not read by Pillow; convert it to JPEG, PNG or TIFF",
    "l.svg": "SVG is a vector drawing; render it to PNG",
    "m.exr": "EXR is not read by Pillow",
    "n.psd": "not an image that PIL can identify",
}


def test_every_image_file_is_listed(tmp_path, config, save_image):
    """Also those that cannot be read: they are skipped with a reason that helps."""
    for name in READABLE:
        save_image(tmp_path / name, format="PNG")
    for name in NAMES:
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("x.jpg.json", "x.mp4", "jpg", "x.jpgs", ".heic", "Thumbs.db", "x."):
        (tmp_path / name).write_bytes(b"")
    source = open_source(config("folder", tmp_path))
    assert source.names == (*READABLE, *NAMES)
    (batch,) = batches(source, len(source.names))
    skipped = {source.names[index]: reason for index, reason in batch.skipped}
    assert skipped.keys() == NAMES.keys()
    for name, reason in NAMES.items():
        assert skipped[name].startswith(reason)


def test_photographs_are_turned_where_it_is_asked_for(tmp_path, config):
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.linear_gradient("L").convert("RGB")
    image.save(tmp_path / "a.png", exif=exif)
    stored = open_source(config("folder", tmp_path)).read(0).pixels
    upright = open_source(config("folder", tmp_path, exif_rotation=True)).read(0).pixels
    np.testing.assert_array_equal(upright, stored[::-1, ::-1])
    assert (upright != stored).any()


def test_folders_deeper_than_the_stack(tmp_path, config, save_image):
    save_image(tmp_path / "/".join("d" * 100) / "x.png")
    frames, frame = 0, sys._getframe()
    while frame := frame.f_back:
        frames += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 60)
    try:
        (name,) = open_source(config("folder", tmp_path)).names
    finally:
        sys.setrecursionlimit(limit)
    assert name == "d/" * 100 + "x.png"


def test_links(tmp_path, config, save_image):
    save_image(tmp_path / "data/in/a.png")
    save_image(tmp_path / "elsewhere/b.png")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/in/up").symlink_to(tmp_path / "data/in")
    (tmp_path / "data/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/lost.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "data/self.png").symlink_to(tmp_path / "data/self.png")
    source = open_source(config("folder", tmp_path / "data"))
    assert source.names == ("in/a.png", "lost.png", "out/b.png", "self.png")


def test_names_that_are_not_text(tmp_path, config, save_image):
    folder = os.fsencode(tmp_path)
    save_image(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", folder + b"/\xff.png")  # noqa: PTH104
    source = open_source(config("folder", tmp_path))
    assert source.names == ("\\xff.png",)
    assert source.read(0).pixels.any()


def test_errors(tmp_path, config):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path, message in [
        ("", "needs config.data.path"),
        (tmp_path / "gone", "gone does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "empty", "has no image files"),
    ]:
        with pytest.raises(UserError, match=message):
            open_source(config("folder", path))
    with pytest.raises(UserError, match="num_images is -1"):
        open_source(config("folder", tmp_path, num_images=-1))
    with pytest.raises(
        UserError, match="'nope'; use scenes, folder, broden, masks, .*, tfds"
    ):
        open_source(config("nope"))
    with pytest.raises(UserError, match="has no split .test"):
        open_source(config("scenes", split="test"))


def test_reading_is_repeatable(photos, config):
    source = open_source(config("folder", photos))
    np.testing.assert_array_equal(source.read(1).pixels, source.read(1).pixels)
