"""python -m jdissect.ablate, on a shipped network."""

import csv
import json

import numpy as np
import pytest

from jdissect import ablate, cli, main, runs

CONFIG = ["--config=configs/baseline.py", "--config.data.num_images=100"]


def run(program, capsys, *arguments):
    code = cli.entry(program.main, ["program", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def dissected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "baseline"
    arguments = [
        *CONFIG,
        "--config.segmenter.name=annotations",
        "--config.model.layers=layer3,layer4",
        f"--workdir={folder}",
    ]
    assert cli.entry(main.main, ["main", *arguments]) == 0
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_last_layer(dissected, tmp_path, capsys):
    arguments = (
        *CONFIG,
        f"--run={dissected}",
        "--units=top:20",
        f"--output={tmp_path}",
    )
    code, text, error = run(ablate, capsys, *arguments)
    assert code == 0, error
    found = json.loads((tmp_path / "ablation.json").read_text())
    result = runs.open_run(dissected).result("layer4")
    best = np.argsort(-result.best_iou, kind="stable")[:20]
    assert found["units"] == sorted(best.tolist()) and found["images"] == 100
    before, after = found["top1_before"], found["top1_after"]
    assert found["change"]["value"] == pytest.approx(after - before)
    assert 60 < before <= 100 and f"top-1 {before:.2f} % before" in text
    classes = rows(tmp_path / "by_class.csv")
    assert sum(int(row["images"]) for row in classes) == 100
    mean = sum(int(r["images"]) * float(r["before"]) for r in classes) / 100
    assert mean == pytest.approx(before)
    single = rows(tmp_path / "single_units.csv")
    assert [int(row["unit"]) for row in single] == list(range(384))
    strongest = rows(tmp_path / "units_by_class.csv")
    assert len(strongest) == 5 * len(classes)
    contrast = found["contrast"]
    assert contrast["zeroed"] == min(
        result.detectors(0.04).sum(), (~result.detectors(0.04)).sum()
    )
    low, high = contrast["difference"]["low"], contrast["difference"]["high"]
    assert low <= contrast["difference"]["value"] <= high
    # The same again: nothing is random but by the seed.
    assert run(ablate, capsys, *arguments)[1] == text


def test_one_unit_is_its_line_of_single_units(dissected, tmp_path, capsys):
    common = (*CONFIG, f"--run={dissected}")
    run(ablate, capsys, *common, "--units=3", f"--output={tmp_path / 'a'}")
    alone = json.loads((tmp_path / "a" / "ablation.json").read_text())
    line = rows(tmp_path / "a" / "single_units.csv")[3]
    assert alone["change"]["value"] == pytest.approx(float(line["top1_change"]))


def test_a_layer_that_others_follow(dissected, tmp_path, capsys):
    arguments = (
        *CONFIG,
        f"--run={dissected}",
        "--layer=layer3",
        "--units=5,0",
        f"--output={tmp_path}",
    )
    code, text, error = run(ablate, capsys, *arguments)
    assert code == 0, error
    assert "last layer before the mean" in text
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["units"] == [0, 5] and found["contrast"] is None
    assert [row["unit"] for row in rows(tmp_path / "single_units.csv")] == ["0", "5"]


def test_honest_path_of_the_last_layer(dissected, tmp_path, capsys, monkeypatch):
    """The same tables from forward passes with the units' maps zeroed."""
    from jdissect import ablation

    common = (*CONFIG, f"--run={dissected}", "--units=0,7,11,200")
    run(ablate, capsys, *common, f"--output={tmp_path / 'linear'}")
    monkeypatch.setattr(ablation, "_linear", ablation._masked)
    run(ablate, capsys, *common, f"--output={tmp_path / 'honest'}")
    linear, honest = (
        json.loads((tmp_path / name / "ablation.json").read_text())
        for name in ("linear", "honest")
    )
    for key in ("units", "top1_before", "top1_after", "change", "by_class"):
        assert linear[key] == honest[key]
    singles = {
        name: {row["unit"]: row for row in rows(tmp_path / name / "single_units.csv")}
        for name in ("linear", "honest")
    }
    for unit, row in singles["honest"].items():
        there = singles["linear"][unit]
        assert row["top1_change"] == there["top1_change"]
        loss = "log_probability_loss"
        assert float(row[loss]) == pytest.approx(float(there[loss]), abs=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--units is not set"),
        (["--units=some"], "--units is 'some'"),
        (["--units=detectors:2"], "--units is 'detectors:2'"),
        (["--units=detectors:0.99"], "names no unit"),
        (["--units=top:0"], "--units is 'top:0'"),
        (["--units=1,384"], "names unit 384; there are 0 to 383"),
        (["--units=-1"], "--units names unit"),
        (["--units=1", "--layer=layer9"], "has no layer 'layer9'"),
        (["--units=1", "--run=/nowhere"], "/nowhere holds no run"),
        (["--units=1", "--seed=x"], "--seed is 'x'"),
        (["--units=1", "--output={run}/config.json"], "is a file"),
        (["--units=1", "--config.model.weights=shipped:mixup"], "another network"),
        (["--units=1", "--config.data.source=folder"], "config.data"),
    ],
)
def test_bad_input(dissected, tmp_path, capsys, arguments, message):
    output = tmp_path / "output"
    arguments = [text.format(run=dissected) for text in arguments]
    common = (*CONFIG, f"--run={dissected}", f"--output={output}")
    code, text, error = run(ablate, capsys, *common, *arguments)
    assert (code, text) == (2, "") and not output.exists()
    assert message in error and len(error.splitlines()) <= 2


def test_names_do_not_run_in_spreadsheets():
    from jdissect.tables import safe_cell

    for text in ("=1+1", "@SUM(A1)", "+x", "-x", "\t=1", " =1"):
        assert safe_cell(text).startswith("'")
    for value in ("plain", 3, -3.5, "a=b", ""):
        assert safe_cell(value) == value
