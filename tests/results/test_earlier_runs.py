"""A run directory that an earlier version wrote can be read by all commands.

`run_of_november` is of the version before the package had folders: a ResNet-18 of width
2 with random weights on 64 scenes, layers layer3 and layer4.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jdissect
from jdissect import compare, export, page
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line

RUN = Path(__file__).with_name("run_of_november")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(RUN, tmp_path / "run")


def finish(command, *arguments):
    assert command_line.entry(command.main, ["x", *map(str, arguments)]) == 0


def test_it_is_read():
    run = open_run(RUN)
    assert run.layers == ("layer3", "layer4") and len(run.names) == 64
    for layer in run.layers:
        result = run.result(layer)
        summary = json.loads((RUN / layer / "summary.json").read_text())
        for threshold, counts in summary["iou_thresholds"].items():
            assert result.unique_concepts(float(threshold)) == counts["unique_concepts"]
            assert result.detector_units(float(threshold)) == counts["detector_units"]
        alone = jdissect.load(RUN / layer)
        np.testing.assert_array_equal(alone.intersection, result.intersection)
        with (RUN / layer / "units.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["iou"]) for row in rows] == pytest.approx(result.best_iou)
        # Intervals need the counts by block.
        assert jdissect.uncertainty.estimates(result)


def test_the_commands_read_it(folder, tmp_path, capsys):
    finish(page, folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "layer3" in text and "layer4" in text
    finish(export, folder, f"--output={tmp_path / 'export'}")
    assert (tmp_path / "export" / "units.parquet").is_file()
    other = shutil.copytree(RUN, tmp_path / "other")
    finish(compare, folder, other, f"--output={tmp_path / 'o'}", "--noreport")
    assert "+0" in capsys.readouterr().out
