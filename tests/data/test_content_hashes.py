"""Content hashes and the manifest that spares re-reading."""

import hashlib
import json
import os

import pytest

from jdissect.data import content_hashes
from jdissect.datasets import open_source


@pytest.fixture
def reads(monkeypatch):
    """The files that were hashed, with clocks that count every file as settled."""
    names = []
    hash_file = content_hashes.hash_file
    monkeypatch.setattr(content_hashes, "_SETTLED_NS", -1)
    monkeypatch.setattr(
        content_hashes,
        "hash_file",
        lambda path: names.append(path.name) or hash_file(path),
    )
    return names


def expected(source, folder):
    return tuple(
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in source.names
    )


def test_a_manifest_spares_reading(photos, config, tmp_path, reads):
    source = open_source(config("folder", photos))
    cache = tmp_path / "new" / "cache"
    assert source.content_hashes(cache) == expected(source, photos)
    assert sorted(reads) == [f"{i}.png" for i in range(5)]
    reads.clear()
    assert source.content_hashes(cache) == expected(source, photos)
    assert reads == []
    # Same size and mtime, other bytes: ctime betrays it.
    status = (photos / "1.png").stat()
    data = bytearray((photos / "1.png").read_bytes())
    data[-1] ^= 1
    (photos / "1.png").write_bytes(data)
    os.utime(photos / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (photos / "3.png").write_bytes(b"shorter")
    assert source.content_hashes(cache) == expected(source, photos)
    assert sorted(reads) == ["1.png", "3.png"]


def test_a_part_keeps_the_rest(photos, config, tmp_path, reads):
    open_source(config("folder", photos)).content_hashes(tmp_path / "cache")
    (photos / "0.png").write_bytes(b"changed")
    open_source(config("folder", photos, num_images=1)).content_hashes(
        tmp_path / "cache"
    )
    reads.clear()
    open_source(config("folder", photos)).content_hashes(tmp_path / "cache")
    assert reads == []


def test_fresh_files_are_not_trusted(photos, config, tmp_path):
    """Within the clock's step a second change would leave the same stamp."""
    source = open_source(config("folder", photos))
    source.content_hashes(tmp_path / "cache")
    assert list(tmp_path.glob("cache/*.json")) == []


@pytest.mark.parametrize("damage", ["{", "[1]", '{"x": 3}', "\xff"])
def test_a_damaged_manifest_is_ignored(photos, config, tmp_path, reads, damage):
    source = open_source(config("folder", photos))
    source.content_hashes(tmp_path / "cache")
    (manifest,) = (tmp_path / "cache").glob("*.json")
    manifest.write_text(damage, encoding="latin-1")
    assert source.content_hashes(tmp_path / "cache") == expected(source, photos)
    json.loads(manifest.read_text())


def test_a_cache_that_cannot_be_written(photos, config, tmp_path, reads):
    (tmp_path / "file").write_text("")
    source = open_source(config("folder", photos))
    assert source.content_hashes(tmp_path / "file") == expected(source, photos)
    assert source.content_hashes(None) == expected(source, photos)
    assert (tmp_path / "file").read_text() == ""


def test_a_file_that_is_gone(photos, config):
    source = open_source(config("folder", photos))
    (photos / "4.png").unlink()
    assert source.content_hashes(None)[4] == content_hashes.UNREADABLE


def test_texts_do_not_run_together():
    assert content_hashes.hash_texts(["ab", "c"]) != content_hashes.hash_texts(
        ["a", "bc"]
    )
