"""The files of verified labels, and what is refused in them."""

import csv
import json

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.results.load_layer import load
from jdissect.verification.judgement import Labels, Rows
from jdissect.verification.separation import Estimates
from jdissect.verification.verified import FILE, TABLE, read
from tests import small_runs


@pytest.fixture
def found():
    concepts = (("=1+1", "object"), ("sky", "object"))
    result = small_runs.result(units=5, concepts=concepts, iou_thresholds=(0.01, 0.04))
    labels = Labels(np.array([0, 2, 4]), np.array([0, 1, 0]))
    rows = Rows(result, labels)

    def interval(low, high):
        return Estimates(*(np.array([n]) for n in ((low + high) / 2, low, high)))

    rows.set([0], "removed", 30, auc=interval(0.6, 0.8), margin=interval(0.1, 0.2))
    rows.set([1], "held out", 12, auc=interval(0.6, 0.8), margin=interval(-0.1, 0.2))
    rows.skip([2], "too few")
    return rows.verified("a hash")


def test_written_and_read(found, tmp_path):
    assert read(tmp_path) is None
    found.write(tmp_path)
    again = read(tmp_path)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value, name)
    assert again.verified.tolist() == [True, False, False]
    with (tmp_path / TABLE).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["verified"] for row in table] == ["1", "0", "0"]
    assert table[0]["concept"] == "'=1+1" and table[2]["auc"] == ""
    assert float(table[0]["auc_low"]) == 0.6 and table[2]["note"] == "too few"


def test_shares(found):
    share = found.share(-1.0)
    assert share == (3, 2, 1) and share.share == 0.5
    above = found.share(float(np.max(found.iou)))
    assert above == (0, 0, 0) and np.isnan(above.share)


def test_a_layer_that_is_saved_again_has_none(found, tmp_path):
    small_runs.result().save(tmp_path / "layer")
    found.write(tmp_path / "layer")
    load(tmp_path / "layer").save(tmp_path / "layer")
    assert read(tmp_path / "layer") is None


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format_version", 2, "format_version is 2"),
        ("columns", [], "columns is"),
        ("layer", 7, "layer is 7, not a text"),
        ("iou_thresholds", {"nan": {}}, "not numbers in"),
        ("auc", [0.1, "x", None], "'auc' does not hold numbers"),
        ("auc", [0.1, 10**400, None], "not finite"),
        ("auc", [0.1], "different lengths"),
        ("auc", None, "lacks the column 'auc'"),
        ("unit", [-1, 0, 1], "'unit' does not hold counts"),
        ("way", ["removed", "guessed", "removed"], "'way' has 'guessed'"),
        ("note", ["", "", "x" * 5000], "'note' does not hold texts"),
    ],
)
def test_hostile_files(found, tmp_path, key, value, says):
    found.write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (content if key in content else content["columns"])[key] = value
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)
