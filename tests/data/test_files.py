"""What is called an image and is none: pipes, sockets, devices, files without end."""

import os
import pathlib
import socket

import pytest

from jdissect.base.errors import UserError
from jdissect.data import content_hashes
from jdissect.data.files import MAX_BYTES, opened
from jdissect.data.loader import batches
from jdissect.data.source import UnreadableImage
from jdissect.datasets import open_source
from jdissect.datasets.labelled import open_labelled

LINKS = {"pipe.jpg": "p", "socket.png": "s", "zero.jpg": "/dev/zero", "up.jpg": "."}


@pytest.fixture
def strange(tmp_path, save_image, monkeypatch):
    """A folder of links to what is no file, a huge file, and two good images."""
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.mkfifo(elsewhere / "p")
    monkeypatch.chdir(elsewhere)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("s")
    save_image(folder / "a" / "good.png", seed=1)
    save_image(folder / "z" / "good.png", seed=2)
    for name, target in LINKS.items():
        (folder / "a" / name).symlink_to(elsewhere / target)
    with (folder / "a" / "huge.jpg").open("wb") as file:
        file.truncate(100 * 1000**3)
    return folder


REASONS = {
    "a/huge.jpg": f"more than {MAX_BYTES:,} bytes, the limit",
    "a/pipe.jpg": "not a regular file",
    "a/socket.png": "not a regular file",
    "a/zero.jpg": "not a regular file",
}


def test_reading_ends(strange, config):
    source = open_source(config("folder", strange))
    (batch,) = batches(source, 8)
    assert {source.names[index]: why for index, why in batch.skipped} == REASONS
    assert batch.valid.sum() == 2
    hashes = dict(zip(source.names, source.content_hashes(None), strict=True))
    assert {n for n, h in hashes.items() if h == content_hashes.UNREADABLE} == set(
        REASONS
    )
    labelled = open_labelled(config("folder", strange), "")
    for index, name in enumerate(labelled.names):
        if name in REASONS:
            with pytest.raises(UnreadableImage, match=REASONS[name]):
                labelled.read(index)


def test_opened(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    for file in (path, str(path)):
        with opened(file) as content:
            assert content.read() == b"content"
    with path.open("rb") as file:
        with opened(file) as content:
            assert content is file
        assert not file.closed
    for file, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "gone.jpg", FileNotFoundError),
        (pathlib.Path("/dev/null"), OSError),
    ):
        with pytest.raises(error), opened(file):
            pass


def test_broden_files_that_are_none(broden, config):
    for name in ("a/mixed.jpg", "b/cross_object.png"):
        (broden / "images" / name).unlink()
        os.mkfifo(broden / "images" / name)
    source = open_source(config("broden", broden))
    with pytest.raises(UnreadableImage, match="a/mixed.jpg: not a regular file"):
        source.read(0)
    with pytest.raises(UserError, match="cross_object.png cannot be decoded: not a"):
        source.read(4)
    assert source.content_hashes(None)[0] == content_hashes.UNREADABLE
    (broden / "label.csv").unlink()
    os.mkfifo(broden / "label.csv")
    with pytest.raises(UserError, match="label.csv cannot be read: not a regular file"):
        open_source(config("broden", broden))
