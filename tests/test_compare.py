"""Runs side by side: python -m jdissect.compare"""

import csv
import json

import numpy as np
import pytest

from jdissect import compare
from jdissect.analysis import comparison
from jdissect.report.figures import drawing
from jdissect.results import finished_run
from jdissect.runtime import command_line
from tests import small_runs
from tests.report import known

HOSTILE = (("=HYPERLINK(1)", "object"), ('<img src="x">', "object"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three runs on the same images."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        small_runs.write(folder / name, small_runs.result(seed, units), top1_error=20.5)
        for seed, (name, units) in enumerate(
            {"plain": 40, "mix": 24, "cut": 40}.items()
        )
    ]


def run(capsys, *arguments, figures=False):
    arguments = ["compare", *map(str, arguments), "--noreport"]
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(drawing, "write", lambda *_: [])
        code = command_line.entry(compare.main, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_that_is_written(folders, tmp_path, capsys):
    output = tmp_path / "deep" / "output"
    code, text, error = run(capsys, *folders, f"--output={output}", figures=True)
    assert code == 0, error
    found = json.loads((output / "comparison.json").read_text())
    assert [model["name"] for model in found["models"]] == ["plain", "mix", "cut"]
    counts = rows(output / "counts.csv")
    results = {f.name: finished_run.open_run(f).result("layer4") for f in folders}
    for row in counts:
        result, threshold = results[row["model"]], float(row["threshold"])
        want = result.unique_concepts(threshold)[row["category"]]
        assert int(row["unique_concepts"]) == want
        units = result.detector_units(threshold)[row["category"]]
        assert int(row["detector_units"]) == units
        low, high = float(row["expected_low"]), float(row["expected_high"])
        assert low <= want <= high and row["top1_error"] == "20.5"
    assert len(counts) == 3 * 3 * 5
    for row in rows(output / "differences.csv"):
        count = [
            results[name].unique_concepts(float(row["threshold"]))[row["category"]]
            for name in (row["model"], row["less"])
        ]
        assert int(row["difference"]) == count[0] - count[1]
        assert row["less"] == "plain"
    curve = rows(output / "curve.csv")
    assert {row["threshold"] for row in curve} >= {"0.01", "0.15", "0.3"}
    for row in curve[::7]:
        want = results[row["model"]].unique_concepts(float(row["threshold"]))["total"]
        assert int(row["unique_concepts"]) == want
    for name in ("unique_concepts", "curve", "differences"):
        assert (output / f"{name}.png").read_bytes()[1:4] == b"PNG"
        assert "<svg" in (output / f"{name}.svg").read_text()
    assert "20.50 %" in text and "less plain" in text


def test_concepts_gained_and_lost(folders, tmp_path, capsys):
    run(capsys, *folders, f"--output={tmp_path}", "--thresholds=0.04")
    results = {f.name: finished_run.open_run(f).result("layer4") for f in folders}
    detected = {
        name: {
            (result.concepts[c], result.categories[c])
            for c in result.best_concept[result.detectors(0.04)]
        }
        for name, result in results.items()
    }
    found = rows(tmp_path / "changes.csv")
    assert len(found) > 5
    pairs = {(row["detected_by"], row["not_by"]) for row in found}
    assert len(pairs) == 6
    for first, second in pairs:
        here = {
            (row["concept"], row["category"])
            for row in found
            if (row["detected_by"], row["not_by"]) == (first, second)
        }
        assert here == detected[first] - detected[second]
    for row in found:
        assert float(row["iou"]) > 0.04 >= float(row["iou_there"])
        assert 0 <= float(row["share_of_resamples"] or 0) <= 1


@pytest.fixture(scope="module")
def known_folders(tmp_path_factory):
    """Two runs with formulas, chance and labels, and what these are."""
    folder, made = tmp_path_factory.mktemp("known"), {}
    for seed, name in enumerate(("plain", "mix")):
        result = small_runs.result(seed)
        path = small_runs.write(folder / name, result)
        made[path] = known.write(path / "layer4", result, seed)
    return made


def test_formulas_chance_and_labels(known_folders, tmp_path, capsys):
    code, text, error = run(capsys, *known_folders, f"--output={tmp_path}")
    assert code == 0 and not error
    assert "by chance" in text and "Not known" not in text
    found = {path.name: one for path, one in known_folders.items()}
    results = {f.name: finished_run.open_run(f).result("layer4") for f in known_folders}
    written = rows(tmp_path / "findings.csv")
    assert len(written) == 2 * 3
    for row in written:
        threshold, one = float(row["threshold"]), found[row["model"]]
        result = results[row["model"]]
        there = result.detectors(threshold)
        assert int(row["detectors"]) == there.sum()
        by_chance = (one.chance.null.iou > threshold).sum(axis=1)
        assert float(row["detectors_by_chance"]) == pytest.approx(by_chance.mean())
        above = (there & (one.chance.values.q <= 0.05)).sum()
        assert int(row["detectors_above_chance"]) == above
        held = one.formulas.iou > threshold
        assert int(row["detectors_by_formula"]) == held.sum()
        different = {one.formulas.formulas[unit] for unit in np.flatnonzero(held)}
        assert int(row["formulas"]) == len(different)
        shown = one.verified.iou > threshold
        judged = (shown & one.verified.judged).sum()
        right = (shown & one.verified.verified).sum()
        assert (int(row["judged"]), int(row["verified"])) == (judged, right)
        assert float(row["verified_share"]) == pytest.approx(right / judged, abs=1e-4)
    changed = rows(tmp_path / "formula_changes.csv")
    at = [row for row in changed if row["threshold"] == "0.04"]
    gained = {row["formula"] for row in at if row["detected_by"] == "mix"}
    sets = {
        name: {
            one.formulas.formulas[unit]
            for unit in np.flatnonzero(one.formulas.iou > 0.04)
        }
        for name, one in found.items()
    }
    assert gained == sets["mix"] - sets["plain"] and gained
    lost = {row["formula"] for row in at if row["detected_by"] == "plain"}
    assert lost == sets["plain"] - sets["mix"]
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert len(content["findings"]) == 6


def test_one_line_where_not_all_runs_have_them(
    folders, known_folders, tmp_path, capsys
):
    first = next(iter(known_folders))
    code, text, _ = run(
        capsys, first, folders[1], f"--output={tmp_path}", "--names=a,b"
    )
    assert code == 0 and "by chance" not in text
    (line,) = [one for one in text.splitlines() if "Not known of all" in one]
    for command in ("compose", "chance", "verify"):
        assert f"python -m jdissect.{command} RUN" in line
    assert not (tmp_path / "findings.csv").exists()


def test_layers_and_names(tmp_path, capsys):
    layers = [small_runs.result(seed, layer=f"layer{seed}") for seed in (3, 4)]
    folder = small_runs.write(tmp_path / "run", *layers)
    output = tmp_path / "output"
    code, text, _ = run(capsys, folder, f"--output={output}", "--names=mine")
    assert code == 0 and "mine layer3" in text and "mine layer4" in text
    code, text, _ = run(
        capsys, folder, folder, f"--output={output}", "--names=a,b", "--layers=layer3",
        "--top1_errors=12.25,-",
    )  # fmt: skip
    assert code == 0 and "12.25 %" in text and "+0" in text


def test_results_that_programs_saved(tmp_path, capsys):
    """`jdissect.dissect(...).save(DIR)` has no run around it."""
    for seed in (3, 4):
        small_runs.result(seed).save(tmp_path / f"mine{seed}")
    folders = [tmp_path / "mine3", tmp_path / "mine4"]
    code, text, error = run(capsys, *folders, f"--output={tmp_path / 'o'}")
    assert code == 0, error
    assert "mine4" in text and "Assumed to use the same images" in text
    small_runs.result(5, images=40).save(tmp_path / "fewer")
    command = (folders[0], tmp_path / "fewer", f"--output={tmp_path / 'p'}")
    code, _, error = run(capsys, *command)
    assert code == 2 and "different probe images" in error
    other = small_runs.write(tmp_path / "run", small_runs.result(5))
    code, _, error = run(capsys, folders[0], other, f"--output={tmp_path / 'p'}")
    assert code == 2 and "probe images" in error


def test_why_there_are_no_intervals(tmp_path):
    """The reason of each run: too few images is not the same as nothing kept."""
    few = small_runs.write(tmp_path / "few", small_runs.result(1, images=6))
    bare = small_runs.write(
        tmp_path / "bare", small_runs.result(2, images=6, blocks=None)
    )
    other = small_runs.write(
        tmp_path / "other", small_runs.result(3, images=6, by_image=None)
    )
    found = comparison.compare([finished_run.open_run(f) for f in (few, bare, other)])
    assert [m.samples for m in found.models] == [None] * 3
    notes = "\n".join(found.notes)
    assert "No intervals for few and other: too few images: 6, with counts" in notes
    assert "No intervals for bare: its counts by block of images were not" in notes
    assert "without counts by block" not in notes
    assert "Only 6 images: counts of fewer than 30 say little" in notes


def test_one_run_alone(folders, tmp_path, capsys):
    for name in ("differences.svg", "differences.png", "report.html"):
        (tmp_path / name).write_text("of another comparison")
    code, text, _ = run(capsys, folders[0], f"--output={tmp_path}")
    assert code == 0 and "less" not in text
    assert not [*tmp_path.glob("differences.*g"), *tmp_path.glob("report.html")]


@pytest.mark.parametrize(
    "identity, message",
    [
        ({"images": "others"}, "probe images"),
        ({"segmenter": "another"}, "segmenters"),
        ({"quantile": 0.005}, "quantiles"),
        ({"images": "o", "mask_size": 28}, "probe images and mask sizes"),
    ],
)
def test_runs_that_differ(folders, tmp_path, capsys, identity, message):
    other = small_runs.write(
        tmp_path / "other", small_runs.result(7), identity=identity
    )
    output = tmp_path / "output"
    code, text, error = run(capsys, folders[0], other, f"--output={output}")
    assert (code, text) == (2, "") and not output.exists()
    assert f"different {message}" in error and "--force" in error
    command = [folders[0], other, f"--output={output}", "--force"]
    drawn = len(identity) > 1  # once is enough
    code, text, _ = run(capsys, *command, figures=drawn)
    assert code == 0 and f"Forced comparison of different {message}" in text
    if drawn:
        figure = (output / "unique_concepts.svg").read_text()
        assert "Forced comparison" in figure
    paired = json.loads((output / "comparison.json").read_text())["paired"]
    assert paired == ("images" not in identity)


def test_other_vocabularies_by_force(folders, tmp_path, capsys):
    concepts = (*HOSTILE, *small_runs.CONCEPTS[5:][::-1])
    other = small_runs.result(8, concepts=concepts)
    folder = small_runs.write(tmp_path / "other", other)
    code, _, error = run(capsys, folders[0], folder, f"--output={tmp_path / 'o'}")
    assert code == 2 and "vocabularies" in error
    found = comparison.compare(
        [finished_run.open_run(f) for f in (folders[0], folder)], force=True
    )
    assert "Only the 33 concepts" in " ".join(found.notes)
    first, second = (model.result for model in found.models)
    assert first.concepts == second.concepts
    for column, name in enumerate(second.concepts):
        there = other.concepts.index(name)
        np.testing.assert_array_equal(
            second.intersection[:, column], other.intersection[:, there]
        )
        np.testing.assert_array_equal(second.iou[:, column], other.iou[:, there])
    kept = second.blocks.intersection()
    np.testing.assert_array_equal(kept, second.intersection)


def test_what_differs_a_little_is_noted(folders, tmp_path, capsys):
    other = small_runs.write(
        tmp_path / "other", small_runs.result(7), identity={"dtype": "bfloat16"}
    )
    code, text, _ = run(capsys, folders[0], other, f"--output={tmp_path / 'o'}")
    assert code == 0 and "also differ in dtype" in text


def test_names_that_spreadsheets_would_run(tmp_path, capsys):
    concepts = (*HOSTILE, *small_runs.CONCEPTS)
    for seed in (1, 2):
        result = small_runs.result(seed, units=60, concepts=concepts)
        small_runs.write(tmp_path / f"=run{seed}", result)
    folders = [tmp_path / f"=run{seed}" for seed in (1, 2)]
    code, _, _ = run(capsys, *folders, f"--output={tmp_path / 'o'}")
    assert code == 0
    text = (tmp_path / "o" / "counts.csv").read_text()
    assert "'=run1" in text and ",=" not in text


def damage_unfinished(folder):
    change(folder / "summary.json", status="running")


def damage_version(folder):
    change(folder / "summary.json", format_version=99)


def damage_shape(folder):
    path = folder / "layer4" / "dissection.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "union": arrays["union"][:, :-1]})


def damage_type(folder):
    path = folder / "layer4" / "topk.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "image": arrays["image"].astype(float)})


def damage_blocks(folder):
    (folder / "layer4" / "blocks.npz").write_bytes(b"PK nothing")


def damage_images(folder):
    (folder / "images.csv").write_text("index,name,block,skipped\n0,a,99,0\n")


def damage_key(folder):
    path = folder / "summary.json"
    content = json.loads(path.read_text())
    del content["layers"]
    path.write_text(json.dumps(content))


def damage_counts(folder):
    change(folder / "summary.json", images=-1)


def damage_error(folder):
    change(folder / "summary.json", top1_error=float("nan"))


def damage_json(folder):
    (folder / "layer4" / "summary.json").write_text("[")


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_unfinished, "is unfinished (status: running)"),
        (damage_version, "summary.json: format_version is 99"),
        (damage_shape, "dissection.npz: 'union' has shape (30, 37), not (30, 38)"),
        (damage_type, "topk.npz: 'image' holds float64"),
        (damage_blocks, "blocks.npz cannot be read"),
        (damage_images, "images.csv: line 2"),
        (damage_counts, "summary.json: images is -1, less than 0"),
        (damage_error, "summary.json: top1_error is nan, not a percentage"),
        (damage_key, "summary.json lacks 'layers'"),
        (damage_json, "layer4/summary.json cannot be read"),
    ],
)
def test_damaged_runs(folders, tmp_path, capsys, damage, message):
    folder = small_runs.write(tmp_path / "run", small_runs.result(1))
    damage(folder)
    output = tmp_path / "output"
    code, text, error = run(capsys, folders[0], folder, f"--output={output}")
    assert (code, text) == (2, "") and not output.exists()
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give one or more run directories"),
        (["{0}"], "--output is not set"),
        (["{0}", "--output={0}/summary.json"], "is a file"),
        (["/nowhere", "--output={o}"], "/nowhere does not hold a run"),
        (["{0}/layer4", "--output={o}"], "is a layer of a run"),
        (["{0}", "{0}", "--output={o}"], "two runs are both named"),
        (["{0}", "{1}", "--names=a", "--output={o}"], "--names has 1 entries"),
        (["{0}", "{1}", "--names=a,a", "--output={o}"], "both named 'a'"),
        (["{0}", "--top1_errors=ten", "--output={o}"], "--top1_errors has 'ten'"),
        (["{0}", "--top1_errors=1,2", "--output={o}"], "--top1_errors has 2"),
        (["{0}", "--thresholds=2", "--output={o}"], "--thresholds has '2'"),
        (["{0}", "--layers=layer9", "--output={o}"], "has no layer 'layer9'"),
        (["{0}", "--nonsense", "--output={o}"], "nonsense"),
    ],
)
def test_bad_input(folders, tmp_path, capsys, arguments, message):
    output = tmp_path / "output"
    arguments = [text.format(*folders, o=output) for text in arguments]
    code, text, error = run(capsys, *arguments)
    assert (code, text) == (2, "") and not output.exists()
    assert message in error and len(error.splitlines()) <= 2
