"""Formulas, chance, labels and scores are read with the layer that they belong to."""

import json

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.report import findings
from jdissect.results import finished_run
from tests import small_runs
from tests.report import known


@pytest.fixture
def folder(tmp_path):
    """A run, and what is known of its layer."""
    folder = small_runs.write(tmp_path / "run", small_runs.result(1))
    known.write(folder / "layer4", small_runs.result(1))
    return folder


def read(folder):
    return findings.read(finished_run.open_run(folder), "layer4")


def test_everything_is_read(folder):
    found, made = read(folder), known.make(small_runs.result(1))
    assert found.kinds == tuple(findings.KINDS)
    assert found.formulas.formulas == made.formulas.formulas
    np.testing.assert_array_equal(found.chance.null.iou, made.chance.null.iou)
    np.testing.assert_array_equal(found.verified.verified, made.verified.verified)
    np.testing.assert_array_equal(found.measured.pearson, made.measured.pearson)


def test_what_is_not_there_is_none(tmp_path):
    folder = small_runs.write(tmp_path / "run", small_runs.result(1))
    assert read(folder).kinds == ()
    alone = tmp_path / "alone"
    small_runs.result(1).save(alone)
    assert findings.read(finished_run.open_run(alone), "alone").kinds == ()


def test_another_runs_files_are_not_shown(folder):
    path = folder / "summary.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "result_hash": "1"}))
    assert read(folder).kinds == ()


@pytest.mark.parametrize(
    "name", ["formulas.csv", "verified.json", "scores.npz", "chance.npz"]
)
def test_files_of_other_units_are_refused(folder, tmp_path, name):
    fewer = small_runs.result(1, units=12)
    other = small_runs.write(tmp_path / "other", fewer)
    known.write(other / "layer4", fewer)
    if name == "verified.json":  # fewer units are a smaller table, more are not
        content = json.loads((folder / "layer4" / name).read_text())
        content["columns"]["unit"][-1] = 30
        (folder / "layer4" / name).write_text(json.dumps(content))
    else:
        for path in (other / "layer4").glob(f"{name.split('.')[0]}.*"):
            (folder / "layer4" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_the_line_names_the_commands():
    line = findings.missing_line(("verified", "formulas"))
    assert line == (
        "Not computed: formulas (python -m jdissect.compose RUN), verified labels "
        "(python -m jdissect.verify RUN)."
    )
    assert findings.missing_line(()) == ""
