"""Exports, read back: python -m jdissect.export"""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from jdissect import export
from jdissect.results import finished_run
from jdissect.runtime import command_line
from tests import small_runs
from tests.report import known

HOSTILE = (
    ('=HYPERLINK("http://x")', "object"),
    ('a "quoted", name', "part"),
    ("</script><script>alert(1)</script>", "material"),
    ("@SUM(A1)", "color"),
    ("thing 3", "part"),  # an object, too
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two layers, in which every hostile name is some unit's concept."""
    concepts = (*HOSTILE, *small_runs.CONCEPTS[:20])
    layers = [
        small_runs.result(seed, units=70, concepts=concepts, layer=f"layer{seed}")
        for seed in (3, 4)
    ]
    return small_runs.write(tmp_path_factory.mktemp("runs") / "mine", *layers)


def run(capsys, *arguments):
    code = command_line.entry(export.main, ["export", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_descriptions(folder, tmp_path, capsys):
    code, _, _ = run(capsys, folder, f"--output={tmp_path}", "--formats=descriptions")
    assert code == 0 and len(list(tmp_path.iterdir())) == 1
    with (tmp_path / "descriptions.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["layer", "unit", "description", "similarity"]
    results = {
        name: finished_run.open_run(folder).result(name)
        for name in ("layer3", "layer4")
    }
    assert len(found) == 140
    for row in found:
        result, unit = results[row["layer"]], int(row["unit"])
        name = result.concepts[result.best_concept[unit]]
        assert row["description"].removeprefix("'") == name
        assert float(row["similarity"]) == pytest.approx(
            result.best_iou[unit], abs=1e-6
        )
        assert not row["description"].startswith(("=", "@"))
    assert any(row["description"].startswith("'=") for row in found)


def test_report(folder, tmp_path, capsys):
    output = tmp_path / "out"
    code, _, error = run(capsys, folder, f"--output={output}", "--formats=report")
    assert code == 0, error
    result = finished_run.open_run(folder).result("layer4")
    found = json.loads((output / "report-layer4.json").read_text())
    assert found["header"]["name"] == "mine layer4"
    units = found["units"]
    assert sorted(unit["unit"] for unit in units) == list(range(70))
    assert [u["iou"] for u in units] == sorted((u["iou"] for u in units), reverse=True)
    for unit in units:
        column = result.best_concept[unit["unit"]]
        assert unit["label"] == result.concepts[column]
        assert unit["cat"] == result.categories[column]
        with Image.open(output / unit["image"]) as picture:
            assert picture.size == (112, 112)
        assert int(unit["image"][-11:-4]) == result.top_image[unit["unit"], 0]


def test_one_layer_is_report_json(folder, tmp_path, capsys):
    arguments = (f"--output={tmp_path}", "--layers=layer3", "--noimages")
    code, text, _ = run(capsys, folder, *arguments)
    assert code == 0 and "report.json" in text
    found = json.loads((tmp_path / "report.json").read_text())
    assert "image" not in found["header"] and "image" not in found["units"][0]
    assert not (tmp_path / "images").exists()


def test_without_photographs(tmp_path, capsys):
    elsewhere = {"data": {"source": "folder", "path": "/nowhere", "num_images": 0}}
    folder = small_runs.write(tmp_path / "run", small_runs.result(1), config=elsewhere)
    code, _, error = run(capsys, folder, f"--output={tmp_path / 'o'}")
    assert code == 0 and "report.json without images" in error
    assert (
        "image"
        not in json.loads((tmp_path / "o" / "report.json").read_text())["units"][0]
    )


def test_parquet(folder, tmp_path, capsys):
    code, _, _ = run(capsys, folder, f"--output={tmp_path}", "--cutoff=0.02")
    assert code == 0
    table = pyarrow.parquet.read_table(tmp_path / "units.parquet").to_pydict()
    found = {
        (layer, unit, concept, category): (iou, common, union, best)
        for layer, unit, concept, category, iou, common, union, best in zip(
            *(table[name] for name in ("layer", "unit", "concept", "category", "iou",
                                       "intersection", "union", "is_best")),
            strict=True,
        )
    }  # fmt: skip
    want = 0
    for layer in ("layer3", "layer4"):
        result = finished_run.open_run(folder).result(layer)
        iou = result.intersection / result.union
        for unit, column in zip(*np.nonzero(iou > 0.02), strict=True):
            key = layer, unit, result.concepts[column], result.categories[column]
            assert found[key] == (
                iou[unit, column],
                result.intersection[unit, column],
                result.union[unit, column],
                result.best_concept[unit] == column,
            )
            want += 1
    assert len(found) == len(table["run"]) == want > 100
    assert set(table["run"]) == {"mine"}


@pytest.fixture(scope="module")
def known_folder(tmp_path_factory):
    """(run, what is known of its layer, its result)."""
    concepts = (*HOSTILE, *small_runs.CONCEPTS[:20])
    result = small_runs.result(3, units=30, concepts=concepts)
    folder = small_runs.write(tmp_path_factory.mktemp("known") / "mine", result)
    return folder, known.write(folder / "layer4", result), result


def test_parquet_has_the_scores(known_folder, tmp_path, capsys):
    folder, _, result = known_folder
    assert run(capsys, folder, f"--output={tmp_path}", "--formats=parquet")[0] == 0
    table = pyarrow.parquet.read_table(tmp_path / "units.parquet").to_pydict()
    scores = result.scores(pairs="all")
    column = {pair: n for n, pair in enumerate(zip(result.concepts, result.categories,
                                                   strict=True))}  # fmt: skip
    assert len(table["unit"]) > 30
    for at, unit in enumerate(table["unit"]):
        place = unit, column[table["concept"][at], table["category"][at]]
        for name in ("f1", "precision", "mcc", "pmi", "ceiling", "sample_coverage"):
            assert table[name][at] == scores[name][place]


def test_parquet_by_unit(known_folder, tmp_path, capsys):
    folder, found, result = known_folder
    assert run(capsys, folder, f"--output={tmp_path}", "--formats=parquet")[0] == 0
    path = tmp_path / "findings.parquet"
    table = pyarrow.parquet.read_table(path).to_pydict()
    assert table["unit"] == list(range(30))
    assert table["formula"] == [text or None for text in found.formulas.formulas]
    assert table["formula_iou"] == found.formulas.iou.tolist()
    low = found.formulas.low
    assert [v is None for v in table["formula_low"]] == np.isnan(low).tolist()
    assert table["p"] == found.chance.values.pooled.tolist()
    for unit in (0, 11):
        names = [result.concepts[column] for column in found.chance.sets.of(unit)]
        assert table["concept_set"][unit] == names
    labels = dict(zip(found.verified.unit, found.verified.verified, strict=True))
    judged = dict(zip(found.verified.unit, found.verified.judged, strict=True))
    for unit in range(30):
        want = bool(labels[unit]) if judged.get(unit) else None
        assert table["verified"][unit] == want
    assert None in table["auc"] and 0.9 in table["auc"]


def test_scores(known_folder, folder, tmp_path, capsys):
    known_run, found, result = known_folder
    code, _, _ = run(capsys, known_run, f"--output={tmp_path}", "--formats=scores")
    assert code == 0
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["unit", "concept", "category", "score", "value"]
    values = {(int(row["unit"]), row["score"]): float(row["value"]) for row in rows}
    f1 = result.scores()["f1"]
    for unit in np.flatnonzero(result.best_concept >= 0):
        assert values[unit, "f1"] == pytest.approx(f1[unit])
        own = found.measured.pearson[unit, result.best_concept[unit]]
        assert values[unit, "pearson"] == pytest.approx(own)
    run(capsys, folder, f"--output={tmp_path / 'two'}", "--formats=scores")
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"scores-layer3.csv", "scores-layer4.csv"}


def test_descriptions_by_formula(known_folder, folder, tmp_path, capsys):
    known_run, found, _ = known_folder
    arguments = "--formats=descriptions", "--describe=formula"
    code, _, _ = run(capsys, known_run, f"--output={tmp_path}", *arguments)
    with (tmp_path / "descriptions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0 and len(rows) > 20
    for row in rows:
        unit = int(row["unit"])
        formula = found.formulas.formulas[unit]
        assert row["description"].removeprefix("'") == formula
        assert float(row["similarity"]) == pytest.approx(found.formulas.iou[unit])
        assert not row["description"].startswith(("=", "@"))
    output = tmp_path / "none"
    code, _, error = run(capsys, folder, f"--output={output}", *arguments)
    assert code == 2 and not output.exists() and error.count("\n") == 1
    assert "has no formulas of layer3, layer4: python -m jdissect.compose" in error


def test_several_runs(folder, tmp_path, capsys):
    other = small_runs.write(tmp_path / "other", small_runs.result(1))
    output = tmp_path / "out"
    code, _, _ = run(capsys, folder, other, f"--output={output}", "--noimages")
    assert code == 0
    assert {path.name for path in output.iterdir()} == {"mine", "other"}
    assert (output / "other" / "units.parquet").is_file()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give one or more run directories"),
        (["{0}"], "--output is not set"),
        (["{0}", "--output={0}/config.json"], "is a file"),
        (["{0}", "--output={o}", "--formats=xlsx"], "--formats has 'xlsx'"),
        (["{0}", "--output={o}", "--cutoff=1"], "--cutoff is 1.0"),
        (["{0}", "--output={o}", "--layers=nose"], "has no layer 'nose'"),
        (["{0}", "{0}", "--output={o}"], "two runs are both named 'mine'"),
        (["{0}/layer3", "--output={o}"], "is a layer of a run"),
    ],
)
def test_bad_input(folder, tmp_path, capsys, arguments, message):
    output = tmp_path / "output"
    arguments = [text.format(folder, o=output) for text in arguments]
    code, text, error = run(capsys, *arguments)
    assert (code, text) == (2, "") and not output.exists()
    assert message in error and len(error.splitlines()) == 1
