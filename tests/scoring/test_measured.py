"""The files of scores: what is read is what was written, or refused in one line."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.scoring import measured, table
from tests.scoring import case
from tests.scoring.test_ranking import found  # noqa: F401  a fixture


@pytest.fixture
def folder(found, tmp_path):  # noqa: F811
    """A layer's folder with its scores."""
    small, scores, _ = found
    folder = tmp_path / "maps"
    small.result.save(folder)
    (tmp_path / "summary.json").write_text(json.dumps({"result_hash": "hash"}))
    measured.write(folder, scores)
    return folder


def test_what_is_read_was_written(folder, found):  # noqa: F811
    again = measured.read(folder)
    for field in dataclasses.fields(again):
        one, other = (getattr(each, field.name) for each in (found[1], again))
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def test_scores_of_another_result_are_not_shown(folder):
    (folder.parent / "summary.json").write_text(json.dumps({"result_hash": "new"}))
    assert measured.read(folder) is None
    (folder / measured.FILE).unlink()
    assert measured.read(folder) is None


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("pearson", np.full((8, 5), 2, "f4"), "'pearson' has a number outside [-1, 1]"),
        ("cosine", np.full((8, 5), np.nan, "f4"), "'cosine' has a number that is not"),
        ("pearson", np.zeros((9, 5), "f4"), "'pearson' has shape (9, 5)"),
        ("column", np.full(32, 5), "'column' has 5"),
        ("unit", np.full(32, -1), "'unit' has -1"),
        ("unit", np.zeros(3, int), "has shape"),
        ("auroc", np.zeros((32, 2), int), "'auroc' holds int64"),
        ("result_hash", np.array("x" * 999), "'result_hash' is not one hash"),
        ("result_hash", np.array([{}]), "'result_hash' holds Python objects"),
        ("error", np.array(-1.0), "'error' is -1.0"),
    ],
)
def test_hostile_files(folder, name, value, line):
    path = folder / measured.FILE
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez_compressed(path, **{**content, name: value})
    with pytest.raises(UserError) as error:
        measured.read(folder)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_the_table(folder, found):  # noqa: F811
    small, scores, _ = found
    table.write(folder, small.result, scores)
    text = (folder / table.FILE).read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == table.HEADING
    units = {row["unit"] for row in rows}
    named = np.flatnonzero(small.result.best_concept >= 0)
    assert units == set(map(str, named)) and "3" not in units  # it never fires
    iou = {r["unit"]: float(r["value"]) for r in rows if r["score"] == "iou"}
    for unit, value in iou.items():
        assert value == small.result.best_iou[int(unit)]
    auroc = [float(r["value"]) for r in rows if r["score"] == "auroc"]
    assert len(auroc) == len(units) and all(map(math.isfinite, auroc))
    assert all(row["concept"] in case.NAMES for row in rows)
    # A result that replaces this one leaves nothing of its scores.
    small.result.save(folder)
    assert not (folder / table.FILE).exists() and measured.read(folder) is None
