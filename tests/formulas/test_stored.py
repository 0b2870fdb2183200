"""Files of formulas: what was written is read; what is damaged is refused."""

import dataclasses
import json

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.formulas import stored
from jdissect.formulas.stored import Formulas, Settings

FOUND = Formulas(
    settings=Settings(length=2, method="optimum", operators=("or", "and_not")),
    unit_names=("0+", "0-", "1+"),
    formulas=("=water OR 'sea", "", "sky"),
    lengths=np.array([2, 0, 1], np.int32),
    iou=np.array([1 / 3, 0.0, 0.25]),
    low=np.array([0.2, 0.0, np.nan]),
    high=np.array([0.4, 0.0, np.nan]),
    cross_fitted=np.array([0.3, 0.0, np.nan]),
    concepts=("=water", "", "sky"),
    concept_iou=np.array([0.3, 0.0, 0.25]),
    beam_iou=np.array([0.3, 0.0, 0.25]),
    visited=np.array([12, 0, 2**40]),
    mean_iou=(0.1, 0.2),
    mean_cross_fitted=(0.1, float("nan")),
    atoms=7,
    result_hash="abc",
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "summary.json").write_text('{"result_hash": "abc"}')
    (tmp_path / "layer4").mkdir()
    stored.write(tmp_path / "layer4", FOUND)
    return tmp_path / "layer4"


def test_what_was_written_is_read(folder):
    read = stored.read(folder)
    for field in dataclasses.fields(Formulas):
        expected, found = getattr(FOUND, field.name), getattr(read, field.name)
        if field.name == "mean_cross_fitted":
            np.testing.assert_array_equal(found, expected)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(found, expected, strict=True)
        else:
            assert found == expected


def test_none_or_of_another_run(folder, tmp_path):
    assert stored.read(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"result_hash": "abd"}')
    assert stored.read(folder) is None


@pytest.mark.parametrize(
    "change, line",
    [
        ({"settings": 3}, "settings are 3"),
        ({"settings": {"length": 2}}, "settings are {'length': 2}"),
        ({"units": -1}, "units is -1"),
        ({"units": 10**30}, "of 10"),
        ({"atoms": True}, "atoms is True"),
        ({"mean_iou": [0.1]}, "mean_iou is [0.1], not 2 means"),
        ({"mean_iou": [0.1, 7.0]}, "mean_iou is [0.1, 7.0], not 2 means"),
        ({"mean_cross_fitted": "ab"}, "mean_cross_fitted is 'ab'"),
    ],
    ids=str,
)
def test_settings_of_someone_else(folder, change, line):
    path = folder / "formulas.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as raised:
        stored.read(folder)
    assert line in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name, value", [("length", 10**9), ("operators", ["xor"]),
                                         ("penalty", "1"), ("beam", True)])  # fmt: skip
def test_a_setting_of_someone_else(folder, name, value):
    path = folder / "formulas.json"
    content = json.loads(path.read_text())
    content["settings"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="settings"):
        stored.read(folder)


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda text: text.replace("0.25", "nan", 1), "line 4 is not"),
        (lambda text: text.replace("0.25", "1e3", 1), "line 4 is not"),
        (lambda text: text.replace(",12\n", ",-12\n"), "line 2 is not"),
        (lambda text: text.replace(",12\n", "," + "9" * 5000 + "\n"), "line 2 is not"),
        (lambda text: text.replace(",12\n", ",12,13\n"), "line 2 is not"),
        (lambda text: text.replace(",12\n", "\n"), "line 2 is not"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "line 4 is not"),
        (lambda text: text.replace("unit", "one", 1), "line 1 is not"),
        (lambda text: text + '"', "is not"),
        (lambda text: "", "line 1 is not"),
    ],
)
def test_a_table_of_someone_else(folder, change, line):
    path = folder / "formulas.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError) as raised:
        stored.read(folder)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_a_table_that_is_missing(folder):
    (folder / "formulas.csv").unlink()
    with pytest.raises(UserError, match=r"formulas\.csv is missing"):
        stored.read(folder)


def test_gained_and_lost():
    other = dataclasses.replace(FOUND, formulas=("sky", "", "sea"))
    assert stored.changed(FOUND, other, 0.1) == (("sea",), ("=water OR 'sea",))
    assert stored.changed(FOUND, other, 0.3) == (("sky",), ("=water OR 'sea",))
