"""Scores of finished runs: python -m jdissect.scores"""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jdissect import scores
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line
from jdissect.scoring import measured
from tests import devices, small_runs


def run(capsys, *arguments):
    code = command_line.entry(scores.main, ["scores", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_scored(drawn_run, tmp_path, capsys):
    copy = shutil.copytree(drawn_run, tmp_path / "run")
    code, out, error = run(capsys, copy)
    assert code == 0, error
    assert "bounds of AUROC, average precision and best IoU are at most" in out
    result = open_run(copy).result("layer4")
    found = measured.read(copy / "layer4")
    assert found.width <= 1e-3 and found.error < 1e-4
    assert f"{len(found.unit):,} pairs ranked" in out
    assert found.pearson.shape == result.intersection.shape
    # The two ends of a unit are negatives of each other.
    np.testing.assert_allclose(found.pearson[::2], -found.pearson[1::2], atol=1e-5)
    table = rows(copy / "layer4" / "scores.csv")
    values = {(r["unit"], r["score"]): float(r["value"]) for r in table}
    unit = int(result.best_iou.argmax())
    column = result.best_concept[unit]
    name = str(result.unit_names[unit])
    assert values[name, "iou"] == result.best_iou[unit]
    assert values[name, "best_iou"] >= result.best_iou[unit] - 1e-3
    assert values[name, "pearson"] == pytest.approx(found.pearson[unit, column])
    # Without images: from the counts, and what the file has.
    code, _, error = run(capsys, copy, "--nofeatures")
    assert code == 0 and rows(copy / "layer4" / "scores.csv") == table


def test_a_run_of_other_masks_is_refused(drawn_run, tmp_path, capsys):
    copy = shutil.copytree(drawn_run, tmp_path / "run")
    path = copy / "layer4" / "dissection.npz"
    with np.load(path) as arrays:
        content = dict(arrays)
    content["thresholds"] = content["thresholds"] + 1
    np.savez(path, **content)
    code, _, error = run(capsys, copy)
    assert code == 2 and "overlap their concepts on other pixels" in error
    assert error.count("\n") == 1 and not (copy / "layer4" / "scores.csv").exists()


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_bits(drawn_run, tmp_path):
    """Of the sums in fixed point, and of the counts that bound the others."""
    found = []
    for count in (1, 2, 4):
        copy = shutil.copytree(drawn_run, tmp_path / str(count))
        command = [sys.executable, "-m", "jdissect.scores", str(copy)]
        subprocess.run(command, env=devices.environment(count), check=True)
        with np.load(copy / "layer4" / "scores.npz") as arrays:
            found.append(dict(arrays))
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(other[name], array, name)


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "give one or more run directories"),
        (["nothing"], "does not hold a run"),
        (["RUN", "--layers=conv9"], "has no layer 'conv9'; it has layer4"),
        (["RUN", "--feature"], "did you mean --features?"),
        (["RUN"], "needs config.data.path"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, line):
    made = small_runs.write(tmp_path / "made", small_runs.result())
    (made / "config.json").write_text(json.dumps({}))
    code, _, error = run(capsys, *(str(made) if a == "RUN" else a for a in arguments))
    assert code == 2 and line in error and error.count("\n") <= 2, error
