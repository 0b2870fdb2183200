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
