"""The command line, as a user meets it: results, refusals, running again."""

import csv
import errno
import hashlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jdissect import main
from jdissect.base import atomic_files, identity
from jdissect.jobs import dissect as jobs
from jdissect.runtime import command_line

CONFIG = "--config=configs/efficientnet_lite0.py"


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = command_line.entry(main.main, ["main", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of the user's cache is read or written."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def command(lite0, drawn):
    """A command that works, on eight images."""
    return [
        CONFIG,
        f"--config.model.weights={lite0}",
        f"--config.data.path={drawn}",
        "--config.data.num_images=8",
        "--config.data.batch_size=4",
    ]


@pytest.fixture
def quick(tiny_classifier, drawn, little_optimized):
    """The same with a network that is compiled quickly."""
    return [
        CONFIG,
        *tiny_classifier,
        f"--config.data.path={drawn}",
        "--config.data.num_images=8",
        "--config.data.batch_size=4",
    ]


@pytest.fixture(scope="session")
def whole_run(lite0, annotated_images, tmp_path_factory):
    """The whole job as a user starts it: (folder, standard output)."""
    folder = tmp_path_factory.mktemp("runs") / "lite0"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jdissect.main",
            CONFIG,
            f"--config.model.weights={lite0}",
            "--config.data.source=broden",
            f"--config.data.path={annotated_images}",
            f"--workdir={folder}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


KINDS = ("object", "part", "material", "color", "total")
# The original's at 0.04: detector units, and unique concepts of each of KINDS.
COUNTS = {"scenes": (1231, (55, 14, 10, 6, 85)), "street": (554, (8, 0, 0, 3, 11))}


def detected(iou, kept, threshold, categories):
    """Counts as in COUNTS of the units that are kept."""
    units = np.flatnonzero(kept & (iou.max(axis=1) > threshold))
    concepts = np.unique(iou[units].argmax(axis=1))
    of = [categories[concept] for concept in concepts]
    return len(units), (*(of.count(kind) for kind in KINDS[:-1]), len(of))


def test_golden(whole_run, annotated_images, lite0_arrays):
    folder, output = whole_run
    expected = np.load(lite0_arrays)
    found = np.load(folder / "head" / "dissection.npz")
    with (annotated_images / "label.csv").open() as file:
        rows = list(csv.DictReader(file))
    categories = [row["category"].partition("(")[0] for row in rows]
    iou = np.nan_to_num(expected["iou"][:, [int(row["number"]) for row in rows]])
    thresholds = expected["thresholds"]
    # At ReLU6's ceiling the original's units pass by its rounding alone.
    kept = thresholds != 6.0
    assert 0 < (~kept).sum() < 20 and (found["fires"][~kept] == 0).all()
    np.testing.assert_allclose(
        found["thresholds"][kept], thresholds[kept], rtol=1e-3, atol=1e-6
    )
    # The border fades the ceiling by weights of a fixed step: there many pixels are
    # equal, and its rounding decides which of them pass.
    summary = json.loads((folder / "head" / "summary.json").read_text())
    side = summary["mask_shape"][0]
    levels = thresholds / 6 * (2 * side // expected["features_first2"].shape[1]) ** 2
    alone = np.abs(levels - np.rint(levels)) > 1e-3
    assert (kept & ~alone).sum() < 50
    assert np.abs(found["iou"] - iou)[kept & alone].max() <= 2e-3
    fires = kept & (expected["unit_area"] > 0) & (found["fires"] > 0)
    same = found["iou"].argmax(axis=1) == iou.argmax(axis=1)
    assert same[fires].mean() >= 0.995
    counts = summary["iou_thresholds"]["0.04"]
    # Rounding moves a few of 10,000 pixels, and with them units at 0.04.
    expected_counts = COUNTS[lite0_arrays.stem.removeprefix("efficientnet_")]
    assert detected(iou, kept, 0.04, categories) == expected_counts
    fewest, most = (detected(iou, kept, t, categories) for t in (0.0405, 0.0395))
    total = counts["detector_units"]["total"]
    assert fewest[0] <= total <= most[0] and str(total) in output
    unique = tuple(counts["unique_concepts"][kind] for kind in KINDS)
    for less, found_of, more in zip(fewest[1], unique, most[1], strict=True):
        assert less <= found_of <= more


@pytest.mark.timing
def test_whole_job_takes_less_than_two_minutes(whole_run):
    summary = json.loads((whole_run[0] / "summary.json").read_text())
    assert summary["seconds"]["total"] < 120, summary["seconds"]


def test_run_directory(whole_run, annotated_images):
    folder, _ = whole_run
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "images.csv",
        "report.html",
        "summary.json",
        "head",
    }
    summary = json.loads((folder / "summary.json").read_text())
    with (annotated_images / "index.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert summary["status"] == "finished" and summary["images"] == len(names)
    assert summary["skipped"] == [] and summary["layers"] == ["head"]
    assert summary["identity"]["quantile"] == 0.01
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert {row["skipped"] for row in rows} == {"0"}
    assert max(int(row["block"]) for row in rows) <= 31
    assert rows[7]["index"] == "7"
    with (folder / "head" / "units.csv").open() as file:
        units = list(csv.DictReader(file))
    found = np.load(folder / "head" / "dissection.npz")
    assert len(units) == 1280
    silent = [row for row in units if not row["concept"]]
    assert len(silent) == (found["fires"] == 0).sum() > 0
    assert np.float32(units[5]["threshold"]) == found["thresholds"][5]
    best = found["iou"][5].argmax()
    assert units[5]["concept"] == found["concepts"][best]


def test_finished_run_is_printed_again(capsys, quick, tmp_path):
    workdir = tmp_path / "run"
    code, first, _ = run(capsys, *quick, f"--workdir={workdir}")
    assert code == 0
    stamp = (workdir / "layer4" / "dissection.npz").stat().st_mtime_ns
    code, again, _ = run(
        capsys, *quick, f"--workdir={workdir}", "--config.parallel=pmap"
    )
    assert code == 0 and "is finished" in again
    assert first.split("written to")[0].strip() in again
    assert (workdir / "layer4" / "dissection.npz").stat().st_mtime_ns == stamp
    # Another run in the same place is refused by name of what differs.
    other = [*quick, f"--workdir={workdir}", "--config.quantile=0.02"]
    code, _, error = run(capsys, *other)
    assert code == 2 and "different: quantile" in error and error.count("\n") == 1
    # What is no run is left alone.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    code, _, error = run(
        capsys, *quick, f"--workdir={tmp_path / 'mine'}", "--overwrite"
    )
    assert code == 2 and "not a run" in error
    path = workdir / "summary.json"
    newer = json.loads(path.read_text()) | {"format_version": 99}
    path.write_text(json.dumps(newer))
    code, _, error = run(capsys, *quick, f"--workdir={workdir}")
    assert code == 2 and "newer" in error


def test_other_iou_thresholds_are_counted_from_what_is_stored(
    capsys, quick, tmp_path, monkeypatch
):
    workdir, few = tmp_path / "run", [*quick, "--config.data.num_images=4"]
    assert run(capsys, *few, f"--workdir={workdir}")[0] == 0
    stored = {
        path: path.read_bytes()
        for path in workdir.rglob("*")
        if path.suffix in (".npz", ".csv")
    }
    page = (workdir / "report.html").read_bytes()
    monkeypatch.setattr(jobs, "dissect_images", None)
    cut = "--config.iou_thresholds=(0.12,)"
    code, output, error = run(capsys, *few, cut, f"--workdir={workdir}")
    assert code == 0, error
    assert "is finished" in output and " 0.12 " in output and " 0.04 " not in output
    summary = json.loads((workdir / "layer4" / "summary.json").read_text())
    with np.load(workdir / "layer4" / "dissection.npz") as arrays:
        iou = arrays["iou"]
    found = summary["iou_thresholds"]
    assert list(found) == ["0.12"]
    assert found["0.12"]["detector_units"]["total"] == (iou.max(axis=1) > 0.12).sum()
    config = json.loads((workdir / "config.json").read_text())
    assert config["iou_thresholds"] == [0.12]
    assert all(path.read_bytes() == content for path, content in stored.items())
    assert (workdir / "report.html").read_bytes() != page
    # Once more: nothing is written.
    stamps = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert run(capsys, *few, cut, f"--workdir={workdir}")[0] == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


@pytest.mark.slow
def test_finished_run_is_replaced(capsys, quick, tmp_path):
    workdir = tmp_path / "run"
    assert run(capsys, *quick, f"--workdir={workdir}")[0] == 0
    other = [*quick, f"--workdir={workdir}", "--config.quantile=0.02"]
    code, _, _ = run(capsys, *other, "--overwrite")
    assert code == 0
    assert json.loads((workdir / "layer4/summary.json").read_text())["quantile"] == 0.02
    # An unfinished run starts over.
    path = workdir / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"status": "running"}))
    code, output, _ = run(capsys, *other)
    assert code == 0 and "is finished" not in output


def test_64_bit_mode_changes_nothing(capsys, quick, tmp_path):
    few = "--config.data.num_images=4"
    folders = tmp_path / "narrow", tmp_path / "wide"
    for folder, wide in zip(folders, (False, True), strict=True):
        with jax.enable_x64(wide):
            code, _, error = run(capsys, *quick, few, f"--workdir={folder}")
        assert code == 0, error
    for name in ("dissection", "topk", "histogram", "blocks"):
        narrow, wide = (np.load(each / "layer4" / f"{name}.npz") for each in folders)
        assert narrow.files == wide.files
        for key in narrow.files:
            assert narrow[key].dtype == wide[key].dtype, key
            np.testing.assert_array_equal(narrow[key], wide[key])


@pytest.mark.slow
def test_layers_at_once_equal_runs_alone(capsys, command, tmp_path):
    both = "--config.model.layers=block10,head"
    assert run(capsys, *command, both, f"--workdir={tmp_path}/both")[0] == 0
    for layer in ("block10", "head"):
        alone = [
            *command,
            f"--config.model.layers={layer}",
            f"--workdir={tmp_path}/{layer}",
        ]
        assert run(capsys, *alone)[0] == 0
        for name in ("dissection", "topk", "histogram"):
            one = np.load(tmp_path / layer / layer / f"{name}.npz")
            two = np.load(tmp_path / "both" / layer / f"{name}.npz")
            for key in one.files:
                np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.slow
@pytest.mark.parametrize("mask_size", [0, 40])
def test_bfloat16_and_mask_size(capsys, quick, tmp_path, mask_size):
    options = ["--config.dtype=bfloat16", f"--config.mask_size={mask_size}"]
    assert run(capsys, *quick, *options, f"--workdir={tmp_path}/run")[0] == 0
    found = np.load(tmp_path / "run" / "layer4" / "histogram.npz")
    assert (found["counts"].sum(axis=1) == 8 * (mask_size or 56) ** 2).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            ["--config.quantle=0.1"],
            "unknown key config.quantle; config has: augment, cache, checkpoint_every",
        ),
        (["--config.data.sorce=x"], "unknown key config.data.sorce; config.data has"),
        (["--config.quantile=0"], "config.quantile is 0.0; it must be between 0 and 1"),
        (["--config.quantile=1.5"], "config.quantile is 1.5"),
        (["--config.quantile=many"], "config.quantile=many"),
        (["--config.data.batch_size=0"], "config.data.batch_size is 0"),
        (["--config.data.batch_size=2.5"], "config.data.batch_size=2.5"),
        (
            ["--config.model.layers=head,layer9"],
            "no layer 'layer9'; it has conv_stem, stem, block0 to block15, head",
        ),
        (["--config.model.layers=head,head"], "without repetitions"),
        (["--config.dtype=float16"], "float32 or bfloat16"),
        (["--config.parallel=threads"], "shard_map or pmap"),
        (["--config.iou_thresholds=2"], "config.iou_thresholds is (2,)"),
        (["--config.data.path=/nowhere"], "/nowhere"),
        (
            ["--config.data.source=fold"],
            "use scenes, folder, broden, masks, coco, ade20k, voc, pascal_context",
        ),
        (["--config.segmenter.name=x"], "use annotations, upernet, colornames"),
        (["--config.segmenter.name=upernet"], "config.segmenter.upernet is not set"),
        (
            ["--config.segmenter.name=upernet", "--config.segmenter.upernet=LITE0"],
            "holds a classifier, not a segmenter",
        ),
        (["--config.cache.max_gb=-1"], "config.cache.max_gb is -1"),
        (
            ["--config.model.name=resnet50"],
            "holds a efficientnet_lite0, not a resnet50",
        ),
        (["--config.model.weights=/nowhere"], "/nowhere"),
        (["--config.model.weights="], "config.model.weights is not set"),
        (["--nonsense"], "nonsense"),
        (["stray"], "unexpected argument 'stray'"),
        (["--config=configs/none.py"], "configs/none.py"),
        (
            ["--config=configs/mixup.py:x"],
            "no variant 'x'; it has: scenes, imagenet, places",
        ),
    ],
)
def test_bad_input(capsys, command, lite0, tmp_path, change, message):
    workdir = tmp_path / "run"
    change = [argument.replace("LITE0", str(lite0)) for argument in change]
    code, _, error = run(capsys, *command, f"--workdir={workdir}", *change)
    assert code == 2
    assert message in error
    assert error.count("\n") <= 2 and "Traceback" not in error
    assert not workdir.exists()


def test_a_segmenter_is_no_classifier(capsys, command, small, tmp_path):
    weights = f"--config.model.weights={small.upernet}"
    code, _, error = run(capsys, *command, weights, f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "holds a segmenter, not a classifier" in error


@pytest.fixture
def photos(tmp_path, little_optimized):
    """Three photographs and one that is too small for UPerNet."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, side in (("a", 64), ("b", 90), ("c", 33), ("tiny", 31)):
        pixels = rng.integers(0, 256, (side, 100, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("name", "features"),
    [
        pytest.param("upernet", "memory", marks=pytest.mark.slow),
        ("colornames", "none"),
        pytest.param("upernet", "none", marks=pytest.mark.slow),
        pytest.param("colornames", "memory", marks=pytest.mark.slow),
    ],
)
def test_any_photographs(
    name, features, tiny_classifier, small, photos, tmp_path, capsys
):
    """Other segmenters than people. UPerNet skips what is too small for it."""
    workdir = tmp_path / "run"
    arguments = [
        CONFIG,
        *tiny_classifier,
        "--config.data.source=folder",
        f"--config.data.path={photos}",
        f"--config.segmenter.name={name}",
        f"--config.segmenter.upernet={small.upernet}",
        f"--config.segmenter.color={small.color_once}",
        f"--config.cache.features={features}",
        f"--config.cache.dir={tmp_path / 'cache'}",
        "--config.data.batch_size=2",
        f"--workdir={workdir}",
    ]
    code, out, error = run(capsys, *arguments)
    assert code == 0, error
    summary = json.loads((workdir / "summary.json").read_text())
    if name == "upernet":
        assert "skipped 1 of 4 images" in out and "pixels, needs at least 32x32" in out
        assert summary["images"] == 3 and summary["skipped"] == ["tiny.png"]
    else:
        assert summary["images"] == 4 and not summary["skipped"]
    found = np.load(workdir / "layer4" / "dissection.npz")
    pairs = list(zip(found["concepts"], found["categories"], strict=True))
    assert ("red", "color") in pairs
    assert (("car", "object") in pairs) == (name == "upernet")
    assert found["intersection"].any()
    # Every pixel of every image that counts is in the union of a unit that never
    # fires with all colours together.
    if name == "colornames":
        still = found["fires"] == 0
        if still.any():
            assert (found["union"][still].sum(axis=1) == 4 * 56 * 56).all()


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["file", "unwritable"])
def test_a_run_goes_on_without_a_cache(
    broken, tiny_classifier, small, photos, tmp_path, capsys, monkeypatch
):
    cache = tmp_path / "cache"
    if broken == "file":
        cache.write_text("no folder")
    else:
        full = OSError(errno.ENOSPC, "No space left on device")

        def fail(*arguments):
            raise full

        monkeypatch.setattr("jdissect.segmenters.label_cache.LabelCache._write", fail)
    code, out, error = run(
        capsys,
        CONFIG,
        *tiny_classifier,
        "--config.data.source=folder",
        f"--config.data.path={photos}",
        "--config.segmenter.name=upernet",
        f"--config.segmenter.upernet={small.upernet}",
        f"--config.segmenter.color={small.color_once}",
        "--config.data.batch_size=2",
        f"--config.cache.dir={cache}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0 and "written to" in out
    assert error.count("\n") == 1 and error.startswith("warning: label maps are not")


def test_no_config_and_help():
    bare = subprocess.run(
        [sys.executable, "-m", "jdissect.main"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert bare.returncode == 2 and "--config=FILE is needed" in bare.stderr
    assert "Traceback" not in bare.stderr
    usage = subprocess.run(
        [sys.executable, "-m", "jdissect.main", CONFIG, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert usage.returncode == 0 and "--workdir" in usage.stdout
    assert "--config.model.layers=('head',)" in usage.stdout


def copy_of(drawn, folder, rows=6):
    """A small Broden folder of one's own."""
    shutil.copytree(drawn, folder)
    lines = (folder / "index.csv").read_text().splitlines()[: rows + 1]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_corrupt_image_is_skipped_or_stops(capsys, quick, drawn, tmp_path):
    folder = copy_of(drawn, tmp_path / "broden")
    broken = "000/000001.png"
    (folder / "images" / broken).write_bytes(b"\xff\xd8\xff not much")
    options = [*quick, f"--config.data.path={folder}"]
    code, output, _ = run(capsys, *options, f"--workdir={tmp_path}/run")
    assert code == 0 and "skipped 1 of 6 images" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["skipped"] == [broken] and summary["images"] == 5
    reasons = summary["skipped_reasons"]
    assert reasons.keys() == {broken} and "image" in reasons[broken]
    with (tmp_path / "run" / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["skipped"] for row in rows] == ["0", "1", "0", "0", "0", "0"]
    for row in rows:  # of the corrupt one, too
        content = (folder / "images" / row["name"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    top = np.load(tmp_path / "run" / "layer4" / "topk.npz")["image"]
    assert 1 not in top and top.max() == 5 and top.shape == (32, 5)
    strict = ["--config.data.strict=true", f"--workdir={tmp_path}/strict"]
    code, _, error = run(capsys, *options, *strict)
    assert code == 2 and broken in error and not (tmp_path / "strict").exists()
    for path in (folder / "images" / "000").glob("??????.png"):
        path.write_bytes(b"")
    code, _, error = run(capsys, *options, f"--workdir={tmp_path}/none")
    first = "none of the images could be read, such as 000/000000.png: not an image"
    assert code == 2 and first in error
    assert not (tmp_path / "none").exists()


def test_broken_broden(capsys, command, drawn, tmp_path):
    folder = copy_of(drawn, tmp_path / "broden")
    options = [*command, f"--config.data.path={folder}", f"--workdir={tmp_path}/run"]
    mask = folder / "images" / "000" / "000000_object.png"
    kept = mask.read_bytes()
    from PIL import Image

    Image.new("RGB", (56, 56), (200, 0, 0)).save(mask)
    code, _, error = run(capsys, *options)
    assert code == 2 and "200" in error and mask.name in error
    assert not (tmp_path / "run").exists()
    mask.write_bytes(kept)
    mask.unlink()
    code, _, error = run(capsys, *options)
    assert code == 2 and mask.name in error
    (folder / "index.csv").unlink()
    code, _, error = run(capsys, *options)
    assert code == 2 and "index.csv" in error


def test_full_disk(capsys, quick, tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "topk.npz":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        atomic_files.write_whole(path, content)

    monkeypatch.setattr("jdissect.results.layer_result.write_whole", full)
    # However slow the machine is, no save comes in between.
    quick = [*quick, "--config.checkpoint_every=1000"]
    code, _, error = run(capsys, *quick, f"--workdir={tmp_path}/run")
    assert code == 2 and "No space left on device" in error and "topk.npz" in error
    assert not (tmp_path / "run").exists()  # nothing was saved to go on with
    monkeypatch.undo()
    code, _, _ = run(capsys, *quick, f"--workdir={tmp_path}/run")
    assert code == 0


@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_full_disk_at_the_start(capsys, quick, tmp_path, monkeypatch, name):
    def full(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        atomic_files.write_whole(path, content)

    monkeypatch.setattr("jdissect.results.run_directory.write_whole", full)
    code, _, error = run(capsys, *quick, f"--workdir={tmp_path}/run")
    assert code == 2 and name in error
    assert not (tmp_path / "run").exists()


def test_result_hash_covers_its_parts():
    keys = {"quantile": 0.01}
    base = identity.identity(
        images=[("a", "1")], model={"w": 1}, segmenter=1, keys=keys
    )
    changed = [
        identity.identity(images=[("a", "2")], model={"w": 1}, segmenter=1, keys=keys),
        identity.identity(images=[("b", "1")], model={"w": 1}, segmenter=1, keys=keys),
        identity.identity(images=[("a", "1")], model={"w": 2}, segmenter=1, keys=keys),
        identity.identity(images=[("a", "1")], model={"w": 1}, segmenter=2, keys=keys),
        identity.identity(
            images=[("a", "1")], model={"w": 1}, segmenter=1, keys={"quantile": 0.02}
        ),
    ]
    assert len({identity.digest(parts) for parts in [base, *changed]}) == 6
