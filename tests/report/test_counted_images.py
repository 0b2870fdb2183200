"""What is drawn of a run later: the images that were counted, and no others.

Runs come from elsewhere, too: their configs must not make a command ask other machines,
and what is written of them must not say where somebody keeps files.
"""

import base64
import csv
import hashlib
import io
import json
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import jdissect
from jdissect import compare, export, figures, page
from jdissect.base import csv_cells as csv_tables
from jdissect.base import paths
from jdissect.data import content_hashes
from jdissect.data.images import decode_cropped
from jdissect.results import finished_run, run_directory
from jdissect.runtime import command_line
from tests.detecting import make_result

NAMES = ("a.png", "sub/b.png", "c.png")
COMMANDS = {"page": page, "compare": compare, "export": export, "figures": figures}


def draw(folder, name, seed):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    spots = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(spots).resize((300, 260), Image.Resampling.NEAREST).save(path)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        draw(folder, name, seed)
    return folder


@pytest.fixture
def make_run(tmp_path, photos):
    """Writes a finished run on the photographs, in the order of their names."""

    def make(name="run", hashed=True, images=None, **data):
        folder = tmp_path / name
        make_result().save(folder / "layer4")
        pairs = [(name, sha256(photos / name)) for name in sorted(NAMES)]
        config = {
            "model": {"name": "resnet50", "weights": str(tmp_path / "weights" / "w1")},
            "data": {"source": "folder", "path": str(photos), "num_images": 0, **data},
            "segmenter": {"name": "colornames", "upernet": str(tmp_path / "upernet")},
        }
        digest = json.dumps([list(pair) for pair in pairs], separators=(",", ":"))
        digest = hashlib.sha256(digest.encode()).hexdigest()
        summary = {
            **{"format_version": 1, "status": "finished", "images": 3, "seconds": {}},
            **{"layers": ["layer4"], "identity": {"images": images or digest}},
        }
        for file, content in (("config", config), ("summary", summary)):
            (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
        columns = ["index", "name", "block", "skipped", "sha256"][: 4 + hashed]
        with (folder / "images.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for number, pair in enumerate(pairs):
                writer.writerow([number, pair[0], 0, 0, pair[1]][: 4 + hashed])
        return folder

    return make


def run(capsys, command, *arguments):
    first = ("detectors",) if command == "figures" else ()
    argv = [command, *first, *map(str, arguments)]
    code = command_line.entry(COMMANDS[command].main, argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def thumbnails(path) -> dict[str, np.ndarray | None]:
    """By name the pictures of a page; None for one that is not there."""
    blocks = dict(
        re.findall(
            r'<script[^>]*id="([^"]+)"[^>]*>(.*?)</script>',
            path.read_text(encoding="utf-8"),
        )
    )
    encoded = json.loads(blocks.get("pictures-0", "null")) or [""] * 3
    names = json.loads(blocks["page"])["images"]
    return {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
        if text
        else None
        for name, text in zip(names, encoded, strict=True)
    }


def check(found, photos, gone=()):
    """Each picture is of the photograph of its name, and only `gone` are missing."""
    assert {name for name, picture in found.items() if picture is None} == set(gone)
    for name, picture in found.items():
        if picture is not None:
            drawn = Image.fromarray(decode_cropped(str(photos / name), name))
            drawn = drawn.resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
            assert np.abs(np.asarray(drawn, float) - picture).mean() < 8


@pytest.mark.parametrize("given", [False, True], ids=["of the config", "data_path"])
def test_images_with_masks_are_drawn_without_the_masks(
    make_run, photos, tmp_path, capsys, given
):
    """Pages show pictures; a stranger's config must not make them read other files."""
    root = tmp_path / "masked"
    root.mkdir()
    photos.rename(root / "images")
    photos.symlink_to(root / "images")
    path = tmp_path / "gone" if given else root
    unread = {"annotations": "gs://bucket/x.json", "ignore": "x"}
    folder = make_run(source="masks", path=str(path), **unread)
    options = [f"--data_path={root}"] if given else []
    code, _, error = run(capsys, "page", folder, *options)
    assert (code, error) == (0, "")
    check(thumbnails(folder / "report.html"), root / "images")


def test_replaced_images_are_not_drawn(make_run, photos, tmp_path, capsys):
    folder, output = make_run(), tmp_path / "out"
    code, _, error = run(capsys, "page", folder)
    assert (code, error) == (0, "")
    check(thumbnails(folder / "report.html"), photos)
    draw(photos, "c.png", 77)  # another one under the same name
    said = r"^warning: 1 image of .*/run not drawn, such as 'c.png': missing, or"
    code, _, error = run(capsys, "page", folder)
    assert code == 0 and re.match(said, error) and error.count("\n") == 1
    check(thumbnails(folder / "report.html"), photos, gone={"c.png"})
    assert "1 picture missing" in (folder / "report.html").read_text(encoding="utf-8")

    code, _, error = run(capsys, "export", folder, f"--output={output}")
    assert code == 0 and re.match(said, error) and error.count("\n") == 1
    units = json.loads((output / "report.json").read_text(encoding="utf-8"))["units"]
    for unit in units:  # top images are n, n + 1, ... of sorted(NAMES)
        assert ("image" in unit) == (unit["unit"] % 3 != 1)
    assert len(list((output / "images").iterdir())) == 2

    code, _, error = run(capsys, "figures", folder, f"--output={output}")
    assert code == 0 and re.match(said, error)
    svg = (output / "detectors-layer4.svg").read_text(encoding="utf-8")
    assert svg.count(">not found</text>") > 0 and svg.count("<image") > 0

    command = (folder, f"--output={tmp_path / 'o'}", "--names=mine")
    code, _, error = run(capsys, "compare", *command)
    assert code == 0 and re.match(said, error)
    found = thumbnails(tmp_path / "o" / "report.html")
    assert [name for name, picture in found.items() if picture is None] == ["c.png"]

    for name in NAMES:
        draw(photos, name, 90)
    code, _, error = run(capsys, "figures", folder, f"--output={output}")
    assert code == 2 and "missing or have changed" in error


def test_images_are_found_by_name(make_run, photos, tmp_path, capsys):
    """More images in the folder move the others; the folder itself may move, too."""
    folder = make_run()
    draw(photos, "a-first.png", 50)
    assert run(capsys, "page", folder)[0::2] == (0, "")
    check(thumbnails(folder / "report.html"), photos)
    photos.rename(tmp_path / "moved")
    code, _, error = run(capsys, "page", folder)
    assert code == 0 and error.startswith("warning: no pictures")
    assert set(thumbnails(folder / "report.html").values()) == {None}
    arguments = (folder, f"--data_path={tmp_path / 'moved'}")
    assert run(capsys, "page", *arguments)[0::2] == (0, "")
    check(thumbnails(folder / "report.html"), tmp_path / "moved")


def test_runs_of_older_versions(make_run, photos, capsys, monkeypatch, tmp_path):
    """Without hashes in images.csv, the identity says whether all images are those."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_run(hashed=False)
    assert finished_run.open_run(folder).hashes == ()
    assert run(capsys, "page", folder)[0::2] == (0, "")
    check(thumbnails(folder / "report.html"), photos)
    draw(photos, "c.png", 77)
    code, _, error = run(capsys, "page", folder)
    assert code == 0 and "images have changed" in error and error.count("\n") == 1
    assert set(thumbnails(folder / "report.html").values()) == {None}


@pytest.mark.parametrize(
    ("place", "source", "commands"),
    [
        ("gs://bucket/x", "folder", tuple(COMMANDS)),
        (r"\\host\x", "folder", ("page",)),
        ("//host/x", "broden", ("page",)),
        ("s3://bucket/x", "tfds", ("page",)),
    ],
)
def test_no_machine_is_asked_in_a_runs_name(
    make_run, tmp_path, capsys, monkeypatch, place, source, commands
):
    folder = make_run(path=place, source=source, name="photos", split="")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model"]["weights"] = place
    (folder / "config.json").write_text(json.dumps(config))
    asked, to_path = [], paths.to_path

    def watched(text):
        if paths.is_elsewhere(text):
            asked.append(text)
            raise jdissect.UserError("asked")
        return to_path(text)

    monkeypatch.setattr(paths, "to_path", watched)
    for command in commands:
        arguments = (folder, f"--output={tmp_path / command}")
        code, _, error = run(capsys, command, *arguments[: 1 + (command != "page")])
        assert code == (2 if command == "figures" else 0)
        assert f"--data_path={place}" in error and error.count("\n") == 1
    assert not asked and finished_run.known_error(finished_run.open_run(folder)) is None
    run(capsys, "page", folder, f"--data_path={place}")
    assert asked or source == "tfds"  # which has its own ways


def test_only_named_files_of_a_named_folder_are_read(
    make_run, photos, tmp_path, monkeypatch, capsys
):
    """Nothing is listed, and nothing outside of the folder is opened."""
    folder = make_run(path=str(tmp_path))
    names = ("../../etc/passwd", "/etc/passwd", "photos/a.png", "photos", "fifo")
    os.mkfifo(tmp_path / "fifo")
    hashes = [sha256(photos / "a.png")] * len(names)
    text = run_directory.images_csv(names, hashes)
    (folder / "images.csv").write_text(text, encoding="utf-8")
    hashed, hash_file = [], content_hashes.hash_file
    monkeypatch.setattr(
        content_hashes, "hash_file", lambda path: hashed.append(path) or hash_file(path)
    )
    monkeypatch.setattr("jdissect.datasets.folder._image_files", None)
    tops = np.array([[n % 5, (n + 1) % 5] for n in range(7)])
    make_result(top_image=tops).save(folder / "layer4")
    code, _, error = run(capsys, "page", folder)
    assert code == 0 and "4 images of" in error
    assert set(hashed) == {photos / "a.png"}
    found = thumbnails(folder / "report.html")
    assert [found[name] is not None for name in names] == [False] * 2 + [True] + [
        False
    ] * 2


@pytest.mark.parametrize(
    "data",
    [
        {"path": 5},
        {"num_images": "all"},
        {"source": ["folder"]},
        {"source": "nothing"},
        None,
    ],
)
def test_a_config_that_is_none(make_run, capsys, data):
    folder = make_run(**(data or {}))
    if data is None:
        (folder / "config.json").write_text('{"data": 5, "segmenter": []}')
    code, _, error = run(capsys, "page", folder)
    assert code == 0 and error.startswith("warning: no pictures")
    assert error.count("\n") == 1


def test_nothing_says_where_files_are_kept(make_run, photos, tmp_path, capsys):
    """Neither pages, figures, tables nor JSON that are mailed."""
    made = [make_run("x/run"), make_run("y/run")]
    output = tmp_path / "out"
    assert run(capsys, "page", *made)[0] == 0
    assert run(capsys, "export", made[0], f"--output={output}")[0] == 0
    assert run(capsys, "figures", made[0], f"--output={output}")[0] == 0
    assert run(capsys, "compare", *made, f"--output={output}")[0] == 0
    written = [folder / "report.html" for folder in made]
    written += [path for path in output.rglob("*") if path.is_file()]
    assert len(written) > 12
    for path in written:
        content = path.read_bytes()
        for block in re.findall(rb'"([A-Za-z0-9+/=]{200,})"', content):
            content += base64.b64decode(block + b"==")
        figures_in = re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)
        content += b"".join(base64.b64decode(figure) for figure in figures_in)
        for secret in (tmp_path, photos, pathlib.Path.home()):
            assert f"{secret}/".encode() not in content, path
            assert str(tmp_path).encode() not in content, path
    text = written[0].read_text(encoding="utf-8")
    assert "folder photos" in text and "w1" in text  # the last names, for orientation


def test_results_that_programs_saved(tmp_path, capsys, monkeypatch):
    """They know neither images nor config; pages and exports hold the rest."""
    folder = tmp_path / "mine"
    make_result().save(folder)
    for arguments, where in (((folder,), tmp_path), ((".",), folder)):
        monkeypatch.chdir(where)
        code, _, error = run(capsys, "page", *arguments)
        assert code == 0 and "does not identify its images" in error
        assert error.count("\n") == 1
        text = (folder / "report.html").read_text(encoding="utf-8")
        assert "resnet50" in text and "<h1>mine</h1>" in " ".join(text.split())
    code, _, error = run(capsys, "export", folder, f"--output={tmp_path / 'o'}")
    assert code == 0 and "does not identify its images" in error
    assert error.count("\n") == 1
    units = json.loads((tmp_path / "o" / "report.json").read_text(encoding="utf-8"))[
        "units"
    ]
    assert len(units) == 6 and "image" not in units[0]
    code, _, error = run(capsys, "figures", folder, f"--output={tmp_path / 'o'}")
    assert code == 2 and "does not identify its images" in error


def test_the_folder_above_results_or_runs(make_run, tmp_path, capsys):
    for layer in ("a", "b"):
        make_result(layer=layer).save(tmp_path / "kept" / layer)
    make_run("runs/one")
    for above, inside in (("kept", "'a', 'b'"), ("runs", "'one'")):
        for command in COMMANDS:
            arguments = (tmp_path / above, f"--output={tmp_path / 'o'}")
            arguments = arguments[: 1 + (command != "page")]
            code, _, error = run(capsys, command, *arguments)
            assert code == 2 and error.count("\n") == 1
            assert f"{tmp_path / above} does not hold a run: it contains" in error
            assert f"{inside}; give one, such as {tmp_path / above}" in error


HOSTILE = (
    *("=1+1", "'=1+1", "''", "'", "+a", "-a", "@a", "\t=a", "\n=a", "\r=a", " =a"),
    *("a\rb", 'a"b,c', "a\nb", "＝1", "plain.jpg", "\ufeff=1", "it's", "b\\x'"),
)


def test_names_in_images_csv(make_run):
    """No cell is a formula, and every name is read as it was."""
    folder = make_run()
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in HOSTILE]
    text = run_directory.images_csv(HOSTILE, hashes, {3: "why"})
    (folder / "images.csv").write_bytes(text.encode())
    found = finished_run.open_run(folder)
    assert found.names == HOSTILE and found.hashes == tuple(hashes)
    assert found.skipped == {3}
    cells = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert len(set(cells)) == len(HOSTILE)
    for cell in cells:
        assert cell.lstrip(" \ufeff")[0] not in "=+-@\t\r\n＝"
    assert [csv_tables.true_text(cell) for cell in cells] == list(HOSTILE)
    # What an older version wrote is read as it is.
    rows = csv_tables.csv_text([("index", "name", "block", "skipped")]) + "".join(
        f'{number},"{name}",0,0\n' for number, name in enumerate(("'=a", "b", "''"))
    )
    (folder / "images.csv").write_bytes(rows.encode())
    assert finished_run.open_run(folder).names == ("'=a", "b", "''")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,a,0,0,XYZ", "line 2 is not index,name,block,skipped,sha256"),
        ("0,a,0,0", "line 2 is not index,name,block,skipped,sha256"),
        ("0,a,0,no," + "0" * 64, "line 2"),
        ("1,a,0,0," + "0" * 64, "line 2"),
        ("0,a,32,0," + "0" * 64, "line 2"),
        ("0,a,0,0," + "0" * 64, "'image' has 2, but images.csv lists 1 images"),
    ],
)
def test_a_damaged_list_of_images(make_run, text, said):
    folder = make_run()
    lines = f"index,name,block,skipped,sha256\n{text}\n"
    (folder / "images.csv").write_text(lines)
    with pytest.raises(jdissect.UserError, match=re.escape(said)):
        finished_run.open_run(folder).result("layer4")
