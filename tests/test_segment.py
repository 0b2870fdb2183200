"""The command that draws what a segmenter sees."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jdissect import segment
from jdissect.report.figures import overlay
from jdissect.runtime import command_line

CONFIG = "--config=configs/mixup.py:imagenet"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Two pictures, one of them in a folder, and a broken one."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "deep/b.jpg"):
        pixels = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
        pixels = pixels.repeat(20, axis=0).repeat(20, axis=1)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no photograph")
    return folder


def run(capsys, *arguments):
    code = command_line.entry(segment.main, ["segment", CONFIG, *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def networks(small):
    return [
        f"--config.segmenter.upernet={small.upernet}",
        f"--config.segmenter.color={small.color_once}",
    ]


def test_it_draws_every_photograph(small, photos, tmp_path, capsys):
    output = tmp_path / "seen"
    flags = [*networks(small), f"--images={photos}"]
    code, out, err = run(capsys, *flags, f"--output={output}")
    assert code == 0, err
    assert "2 pictures" in out and "skipped broken.jpg" in err
    files = sorted(str(p.relative_to(output)) for p in output.rglob("*.png"))
    assert files == ["a.png.png", "deep/b.jpg.png"]
    # The photograph and objects, parts, materials, two categories of colours.
    panels = 6
    with Image.open(output / "a.png.png") as picture:
        width = overlay.MARGIN + panels * (overlay.WIDTH + overlay.MARGIN)
        assert picture.width == width
    code, _, err = run(capsys, *flags, f"--output={output}")
    assert code == 2 and "not empty" in err
    (output / "a.png.png").unlink()
    code, _, _ = run(capsys, *flags, f"--output={output}", "--overwrite")
    assert code == 0 and (output / "a.png.png").is_file()


def test_names_and_files_of_every_kind(photos, tmp_path, capsys):
    """Escapes are shown, long names cut, and where nothing is left it is said why."""
    output = tmp_path / "seen"
    (photos / "a.png").rename(photos / "\x1b[2J.png")
    (photos / "deep" / "b.jpg").rename(photos / f"{'ä' * 125}.png")
    (photos / "broken.jpg").rename(photos / "bro\nken.jpg")
    os.mkfifo(tmp_path / "pipe")
    (photos / "pipe.jpg").symlink_to(tmp_path / "pipe")
    flags = ["--config.segmenter.name=colornames", f"--images={photos}"]
    flags.append(f"--output={output}")
    code, out, err = run(capsys, *flags)
    assert code == 0 and "2 pictures" in out, err
    lines = [line for line in err.splitlines() if line.startswith("skipped")]
    assert lines == [
        "skipped bro\\nken.jpg: not an image that PIL can identify",
        "skipped pipe.jpg: not a regular file",
    ]
    assert "\x1b" not in err
    names = sorted(path.name for path in output.iterdir())
    assert names[0] == "\x1b[2J.png.png" and names[1].startswith("ä" * 100)
    assert len(names) == 2 and len(names[1].encode()) <= 255
    for path in photos.glob("*.png"):
        path.write_bytes(b"")
    code, _, err = run(capsys, *flags, "--overwrite")
    reason = "such as \\x1b[2J.png: not an image that PIL can identify"
    assert code == 2 and f"error: none of the images could be read, {reason}" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--output=DIR is required"),
        (["--output=out"], "config.segmenter.upernet is not set"),
        (["--output=out", "--config.segmenter.name=eyes"], "'eyes'"),
        (["--output=out", "--config.segmenter.quarters=some"], "'some'"),
        (["--output=out", "--config.cache.max_gb=-1.0"], "cache.max_gb"),
        (["--output=out", "--config.segmenter.upernet=nowhere"], "is missing"),
        (["--output=out", "--images=nowhere"], "does not exist"),
        (["--output=photos/a.png"], "is a file"),
    ],
)
def test_refusals(flags, message, photos, small, tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").symlink_to(segment.__file__.rsplit("/", 2)[0] + "/configs")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "--images=photos", *flags)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2 and not out
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_no_segmenter(small, photos, tmp_path, capsys):
    folder = tmp_path / "classifier"
    folder.mkdir()
    description = json.loads((small.upernet / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"kind": "classifier"}))
    code, _, err = run(
        capsys,
        f"--images={photos}",
        f"--output={tmp_path / 'out'}",
        f"--config.segmenter.upernet={folder}",
    )
    assert code == 2 and "holds a classifier, not a segmenter" in err
