"""The command that draws figures of photographs."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jdissect import figures, scenes
from jdissect.report import top_masks
from jdissect.report.figures import detector_pictures, drawing, inputs
from jdissect.results import layer_result
from jdissect.runtime import command_line
from tests.detecting import make_result

FILES = ["augmentations.png", "augmentations.svg"]


def run(capsys, *arguments):
    code = command_line.entry(figures.main, ["figures", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def stored(tmp_path):
    """A finished run on three scenes."""

    def make(result, num_images=3):
        folder = tmp_path / "run"
        result.save(folder / "layer4")
        data = {"source": "scenes", "path": "", "split": "probe", "name": ""}
        config = {
            "data": {**data, "num_images": num_images},
            "segmenter": {"name": "annotations"},
        }
        summary = {
            **{"format_version": 1, "status": "finished", "images": 3},
            **{"layers": ["layer4"], "identity": {}, "seconds": {}},
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "summary.json").write_text(json.dumps(summary))
        source = scenes.open_scenes("probe", 3)
        pairs = zip(source.names, source.content_hashes(), strict=True)
        rows = [f"{n},{name},0,0,{digest}" for n, (name, digest) in enumerate(pairs)]
        lines = ["index,name,block,skipped,sha256", *rows, ""]
        (folder / "images.csv").write_text("\n".join(lines))
        return folder

    return make


def test_augmentations_of_photographs(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a$_1.png", "b.jpg", "c.png", "d.png", "e.png"):
        small = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        Image.fromarray(small).resize((70, 50)).save(photos / name)
    output = tmp_path / "deep" / "figures"
    flags = ["augmentations", f"--output={output}", "--size=32"]
    code, out, err = run(capsys, *flags, f"--images={photos}", "--count=3")
    assert code == 0, err
    assert "A: a$_1.png\nB: b.jpg\nC: c.png\nwritten" in out
    assert sorted(p.name for p in output.iterdir()) == FILES
    svg = (output / FILES[1]).read_text()
    for text in ("original", "Cutout", "Mixup", "CutMix", "SaliencyMix"):
        assert f">{text}</text>" in svg
    assert svg.count(">λ = 1.00</text>") == 6 and svg.count(">λ = ") == 15
    assert svg.count("<image") == 18 and ">saliency of source</text>" in svg
    # Files in the order given; columns as asked for.
    files = f"--images={photos / 'e.png'},{photos / 'b.jpg'}"
    code, out, err = run(capsys, *flags, files, "--recipes=mixup,none")
    assert code == 0 and "B: " + str(photos / "b.jpg") in out, err
    svg = (output / FILES[1]).read_text()
    assert svg.count("<image") == 4 and "Cutout" not in svg
    assert svg.index(">Mixup<") < svg.index(">original<")
    again = {name: (output / name).read_bytes() for name in FILES}
    assert run(capsys, *flags, files, "--recipes=mixup,none")[0] == 0
    assert again == {name: (output / name).read_bytes() for name in FILES}


def test_photographs_that_cannot_be_read(tmp_path, capsys):
    """Of a folder they are left out; a file that was named has to be read."""
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("b.png", "c\x1b[2J.png"):
        Image.new("RGB", (20, 40)).save(photos / name, exif=exif)
    (photos / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (photos / "z.png").write_bytes(b"")  # comes too late to be missed
    os.mkfifo(tmp_path / "pipe.jpg")
    output = tmp_path / "out"
    flags = ["augmentations", f"--output={output}", "--size=32", "--recipes=none"]
    code, out, err = run(capsys, *flags, f"--images={photos}", "--count=2")
    assert code == 0 and "A: b.png\nB: c\\x1b[2J.png\nwritten" in out
    assert err.startswith("skipped 1 image that could not be read, such as a.heic: HE")
    assert err.count("\n") == 1
    turned = inputs.photographs(str(photos / "b.png"), 1, 32, True)[1][0]
    assert not turned.any()
    for name, reason in (
        (photos / "a.heic", "a.heic: HEIC is not read by Pillow"),
        (tmp_path / "pipe.jpg", "pipe.jpg: not a regular file"),
    ):
        code, _, err = run(capsys, *flags, f"--images={name}")
        assert code == 2 and err.startswith("error: --images: ") and reason in err
    for path in photos.glob("*.png"):
        path.write_bytes(b"")
    code, _, err = run(capsys, *flags, f"--images={photos}")
    assert code == 2 and "none of the images could be read, such as a.heic: HEIC" in err


def test_augmentations_of_scenes_need_nothing(tmp_path, capsys):
    flags = [f"--output={tmp_path}", "--recipes=none,cutout", "--count=1"]
    code, out, err = run(capsys, "augmentations", *flags)
    assert code == 0 and "A: scenes/" in out, err
    with Image.open(tmp_path / FILES[0]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    expected = scenes.open_scenes("probe", 1).read(0).pixels
    # Each pixel as 2 x 2; not those that the frame touches.
    side, left, top = 224, round(0.3 * 200), round(0.3 * 200)
    shown = pixels[top : top + side : 2, left : left + side : 2]
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(shown[inner].astype(int) - expected[inner]).max() < 2


def test_detectors_of_a_run(stored, tmp_path, capsys):
    run_folder = stored(make_result())
    output = tmp_path / "figures"
    flags = ["detectors", run_folder, f"--output={output}"]
    code, out, err = run(capsys, *flags, "--per_category=2")
    assert code == 0, err
    svg = (output / "detectors-layer4.svg").read_text()
    for title in (
        "car · unit 0 · IoU 0.300",
        "$ky_1 · unit 2 · IoU 0.200",
        "wheel · unit 3 · IoU 0.110",
        "red · unit 4 · IoU 0.090",
    ):
        assert f">{title}</text>" in svg and title in out
    assert "wood" not in svg and "unit 1 " not in svg
    assert svg.count("<image") == 8
    assert run(capsys, *flags, "--layer=layer4", "--per_category=1")[0] == 0
    assert (output / "detectors-layer4.svg").read_text().count("<image") == 6


def test_the_photographs_are_those_of_the_run(stored, tmp_path, monkeypatch, capsys):
    drawn = {}
    monkeypatch.setattr(
        detector_pictures,
        "draw",
        lambda blocks, title: drawn.update(blocks) or drawing.new_figure(1, 1),
    )
    folder = stored(make_result())
    assert run(capsys, "detectors", folder, f"--output={tmp_path / 'out'}")[0] == 0
    source = scenes.open_scenes("probe", 3)
    strip = drawn["object"][1]  # unit 2, images 2 and 0
    for picture, number in zip(strip.pictures, (2, 0), strict=True):
        np.testing.assert_array_equal(picture, source.read(number).pixels)
    expected = top_masks.top_masks(make_result(), [2])[0]
    np.testing.assert_array_equal(strip.masks, expected)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there are: augmentations, detectors"),
        (["histograms"], "unknown figure 'histograms'"),
        (["augmentations"], "--output=DIR is required"),
        (["augmentations", "--output=OUT", "--unknown=1"], "unknown"),
        (["augmentations", "--output=OUT", "rest"], "unexpected argument 'rest'"),
        (["augmentations", "--output=FILE"], "is a file"),
        (["augmentations", "--output=FILE/in", "--count=2"], "is a file"),
        (["augmentations", "--output=OUT", "--images=EMPTY"], "has no image files"),
        (["augmentations", "--output=OUT", "--images=gone.png"], "gone.png"),
        (["augmentations", "--output=OUT", "--images=BROKEN"], "not an image"),
        (["augmentations", "--output=OUT", "--recipes=puzzle"], "'puzzle'"),
        (["augmentations", "--output=OUT", "--count=1"], "two or more"),
        (["augmentations", "--output=OUT", "--seed=-1"], "--seed is -1"),
        (["detectors", "--output=OUT"], "give one run directory"),
        (["detectors", "no/run", "--output=OUT"], "does not hold a run"),
        (["detectors", "EMPTY", "--output=OUT", "--per_category=0"], "per_category"),
    ],
)
def test_bad_input_is_answered_in_a_line(arguments, said, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no photograph")
    for name in ("OUT", "FILE", "EMPTY", "BROKEN"):
        arguments = [a.replace(name, f"{tmp_path / name.lower()}") for a in arguments]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and said in err
    assert err.startswith("error: ") and err.count("\n") <= 2
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_drawn(stored, tmp_path, capsys):
    output = tmp_path / "out"

    def refused(folder, said):
        code, _, err = run(capsys, "detectors", folder, f"--output={output}")
        assert code == 2 and said in err and err.count("\n") == 1, err
        assert not output.exists()

    refused(stored(make_result()) / "layer4", "is a layer of a run")
    weak = np.zeros((7, 5), np.int64)
    refused(stored(make_result(intersection=weak)), "no unit of")
    folder = stored(make_result())
    config = json.loads((folder / "config.json").read_text())
    del config["data"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "config.json cannot be used")
    stored(make_result())
    (folder / "layer4" / layer_result.TOP_MAPS).unlink()
    refused(folder, "older version; run again with --overwrite")


def test_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "augmentations" in out and "detectors" in out
    for name, flag in (("augmentations", "--recipes"), ("detectors", "--per_category")):
        with pytest.raises(SystemExit) as ended:
            run(capsys, name, "--help")
        assert ended.value.code == 0
        assert flag in capsys.readouterr().out
