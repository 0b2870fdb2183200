"""The source 'folder': which files it takes, in which order, under which names."""

import os

import numpy as np
import pytest

from jdissect.data import open_source
from jdissect.errors import UserError


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
        UserError, match="'nope'; it can be scenes, folder, broden, tfds"
    ):
        open_source(config("nope"))
    with pytest.raises(UserError, match="has no split .test"):
        open_source(config("scenes", split="test"))


def test_reading_is_repeatable(photos, config):
    source = open_source(config("folder", photos))
    np.testing.assert_array_equal(source.read(1).pixels, source.read(1).pixels)
