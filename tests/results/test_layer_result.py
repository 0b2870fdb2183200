"""A layer's result: its concepts at the edge, its files, and files that are damaged."""

import csv
import io
import json
import re

import numpy as np
import pytest

import jdissect
from jdissect.ablation import network_units, unit_selection
from jdissect.analysis.comparison import levels
from jdissect.report import export
from jdissect.report.pages import layer_data
from jdissect.report.tables.layer import layer_report
from jdissect.results import layer_result
from tests import small_runs
from tests.detecting import make_result


def rows(folder):
    text = (folder / "units.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_unit_that_overlaps_nothing_has_no_concept(tmp_path):
    result = make_result()  # its last unit fires on 50 pixels, none of a concept
    assert result.fires[6] == 50 and not result.intersection[6].any()
    assert result.best_concept.tolist() == [0, 0, 1, 2, 3, 4, -1]
    assert result.best_iou[6] == 0
    assert not result.detectors(0.0)[6] and not result.detectors(-1.0)[6]
    assert result.unique_concepts(0.0)["total"] == 5
    assert levels(result).tolist() == [0.3, 0.2, 0.11, 0.09, 0.04]
    result.save(tmp_path)
    last = rows(tmp_path)[6]
    assert (last["concept"], last["category"], float(last["iou"])) == ("", "", 0.0)
    page = layer_data.unit_arrays(result, np.arange(3))
    assert page["fires"] != page["best"]
    with pytest.raises(jdissect.UserError, match="only 6 units of layer4 overlap"):
        unit_selection.parse("top:7").units(7, "layer4", result)
    assert len(unit_selection.parse("top:6").units(7, "layer4", result)) == 6
    with pytest.raises(jdissect.UserError, match="no unit of layer4"):
        none = make_result(intersection=np.zeros((7, 5), np.int64))
        unit_selection.parse("detectors:0").units(7, "layer4", none)


def test_an_iou_just_above_a_threshold_stays_above_it_in_the_table(tmp_path):
    near = np.zeros((7, 5), np.int64)
    near[0, 0] = 4_000_000
    union = np.full((7, 5), 99_999_999)
    result = make_result(intersection=near, union=union, fires=np.full(7, 5_000_000))
    result.save(tmp_path)
    table = [float(row["iou"]) > 0.04 for row in rows(tmp_path)]
    assert table == result.detectors(0.04).tolist() == [True] + [False] * 6


def test_a_saved_result_replaces_another_one_whole(tmp_path):
    full = small_runs.result(1, images=64)
    full.save(tmp_path)
    (tmp_path / "report.html").write_text("of the first")
    assert jdissect.load(tmp_path).blocks is not None
    bare = make_result(top_map=None)
    bare.save(tmp_path)
    again = jdissect.load(tmp_path)
    assert (again.top_map, again.blocks, again.by_image) == (None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("dissection.npz", "histogram.npz", "summary.json", "topk.npz", "units.csv")
    ]


@pytest.mark.parametrize("written", range(7))
def test_a_save_that_is_cut_off_leaves_the_old_result(tmp_path, monkeypatch, written):
    """Whatever was written by then: the folder holds what it held."""
    small_runs.result(1, units=7).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write, count = layer_result.write_whole, iter(range(99))

    def cut_off(path, content):
        if next(count) == written:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(layer_result, "write_whole", cut_off)
    monkeypatch.setattr("jdissect.results.group_counts.write_whole", cut_off)
    new = small_runs.result(2, units=7)
    with pytest.raises(OSError):
        new.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_runs_own_summary_is_not_replaced(tmp_path):
    folder = small_runs.write(tmp_path / "run", small_runs.result(1, images=3))
    before = (folder / "summary.json").read_bytes()
    with pytest.raises(jdissect.UserError, match="is a run; save the result to"):
        make_result().save(folder)
    assert (folder / "summary.json").read_bytes() == before


SUMMARY = {
    "iou_thresholds": [
        ({"high": {}}, "iou_thresholds has 'high', not a number in [0, 1)"),
        ({"nan": {}}, "iou_thresholds has 'nan'"),
        ({"1.5": {}}, "iou_thresholds has '1.5'"),
        ({"-0.1": {}}, "iou_thresholds has '-0.1'"),
        ([0.04], "iou_thresholds is [0.04], not an object"),
    ],
    "quantile": [
        ("0.01", "quantile is '0.01', not a number between 0 and 1"),
        (float("nan"), "quantile is nan"),
        (2.5, "quantile is 2.5"),
        (None, "quantile is None"),
    ],
    "images": [(-3, "images is -3"), (True, "images is True"), (1.5, "images is 1.5")],
    "units": [(-1, "units is -1"), (10**12, "units is 1000000000000"), ("7", "'7'")],
    "model": [(5, "model is 5, not a string")],
    "layer": [(["a"], "layer is ['a'], not a string")],
    "mask_shape": [([0, 5], "mask_shape is [0, 5]"), ("big", "mask_shape is 'big'")],
}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [(key, *case) for key, cases in SUMMARY.items() for case in cases],
)
def test_damaged_values_of_a_summary(tmp_path, key, value, said):
    make_result().save(tmp_path)
    path = tmp_path / "summary.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, key: value}), encoding="utf-8")
    with pytest.raises(jdissect.UserError, match=re.escape(said)) as error:
        jdissect.load(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_summary_that_lacks_a_key_or_is_no_text(tmp_path):
    make_result().save(tmp_path)
    path = tmp_path / "summary.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("quantile", "iou_thresholds", "model", "layer", "images"):
        rest = {name: value for name, value in content.items() if name != key}
        path.write_text(json.dumps(rest), encoding="utf-8")
        with pytest.raises(jdissect.UserError, match=f"lacks '{key}'"):
            jdissect.load(tmp_path)
    for damaged in (b"\xff\xfe{", b"[" * 100_000, b"[]", b'{"units": 1' + b"0" * 9999):
        path.write_bytes(damaged)
        with pytest.raises(jdissect.UserError, match=r"summary\.json"):
            jdissect.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "name", "damage", "said"),
    [
        ("dissection", "union", lambda a: -a, "'union' has -100, less than 0"),
        ("dissection", "fires", lambda a: a - 51, "'fires' has -1, less than 0"),
        ("dissection", "intersection", lambda a: a + 99, "exceeds the union"),
        ("dissection", "fires", lambda a: a - 45, "where the unit fires"),
        ("dissection", "thresholds", lambda a: a * np.nan, "'thresholds' has a number"),
        ("topk", "value", lambda a: a * np.inf, "'value' has a number that is not"),
        ("topk", "image", lambda a: a - 1, "'image' has -1, less than 0"),
        ("topk", "image", lambda a: a.astype("i8") + 2**40, "'image' has"),
        ("histogram", "counts", lambda a: a - 2, "'counts' has -1, less than 0"),
        ("histogram", "edges", lambda a: a * np.nan, "'edges' has a number"),
        ("histogram", "edges", lambda a: a[:, :-1], "'edges' has shape (7, 4)"),
        ("topmaps", "map", lambda a: a * np.nan, "'map' has a number"),
    ],
)
def test_damaged_numbers(tmp_path, file, name, damage, said):
    make_result().save(tmp_path)
    path = tmp_path / f"{file}.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, name: damage(arrays[name])})
    with pytest.raises(jdissect.UserError, match=re.escape(said)) as error:
        jdissect.load(tmp_path)
    assert str(path) in str(error.value)


def test_the_folder_above_says_what_is_in_it(tmp_path):
    for layer in ("a", "b"):
        make_result(layer=layer).save(tmp_path / layer)
    (tmp_path / "c").mkdir()
    said = f"not hold a dissection: .*'a', 'b'; give one, such as {tmp_path / 'a'}$"
    with pytest.raises(jdissect.UserError, match=said):
        jdissect.load(tmp_path)
    with pytest.raises(jdissect.UserError, match=r"summary.json is missing"):
        jdissect.load(tmp_path / "c")


def signed(**changes):
    """Three units of the network, by both ends; without the seventh row."""
    whole = make_result()
    per_unit = ("thresholds", "intersection", "union", "fires", "top_value")
    per_unit += ("top_image", "histogram_counts", "histogram_edges", "top_map")
    picked = {name: getattr(whole, name)[:6] for name in per_unit}
    return whole.replace(**picked, tail="both", **changes)


def test_ends_of_units_have_names_and_the_activations_sign(tmp_path):
    signed().save(tmp_path)
    table = rows(tmp_path)
    assert [row["unit"] for row in table] == ["0+", "0-", "1+", "1-", "2+", "2-"]
    thresholds = make_result().thresholds[:6] * np.float32([1, -1] * 3)
    assert [float(row["threshold"]) for row in table] == thresholds.tolist()
    assert not any(row["threshold"].startswith("'") for row in table)
    again = jdissect.load(tmp_path)
    assert again.tail == "both" and again.unit_names[3] == "1-"
    text = layer_report(again)
    assert "tail both" in text and re.search(r"^0-  +0.250  car", text, re.MULTILINE)
    lower = signed().replace(tail="lower")
    assert lower.unit_names.tolist() == ["0-", "1-", "2-", "3-", "4-", "5-"]
    silent = lower.replace(thresholds=np.zeros(6, np.float32))
    assert not np.signbit(silent.shown_thresholds).any()


def test_a_summary_with_another_tail_is_refused(tmp_path):
    signed().save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for change, message in (
        ({"tail": "middle"}, "tail is 'middle', not upper, lower, both"),
        ({"tail": ["both"]}, "tail is"),
        ({"units": 5}, "units is 5, an odd number of ends"),
    ):
        (tmp_path / "summary.json").write_text(json.dumps({**summary, **change}))
        with pytest.raises(jdissect.UserError, match=message):
            jdissect.load(tmp_path)


def test_an_upper_tail_is_not_written(tmp_path):
    """Files of runs without signed units are what they were."""
    make_result().save(tmp_path)
    assert "tail" not in json.loads((tmp_path / "summary.json").read_text())
    assert [row["unit"] for row in rows(tmp_path)] == list("0123456")


def test_exports_name_ends():
    result = signed()
    table = list(csv.reader(io.StringIO(export.descriptions({"a": result}))))
    assert [row[1] for row in table] == ["unit", "0+", "0-", "1+", "1-", "2+", "2-"]
    units = export.netdissect_report(result, "x")["units"]
    assert [one["unit"] for one in units][:2] == ["0+", "0-"]
    units = export.netdissect_report(make_result(), "x")["units"]
    assert [one["unit"] for one in units][:2] == [0, 1]
    parquet = pytest.importorskip("pyarrow.parquet")
    written = io.BytesIO(export.parquet("run", {"a": result}, 0.1))
    found = parquet.read_table(written).to_pylist()
    assert [row["unit"] for row in found] == ["0+", "0-", "1+", "1-"]
    assert found[1]["threshold"] == -result.thresholds[1]


def test_ablation_takes_the_better_end_of_a_unit():
    found, names = network_units.of_network(signed())
    assert names.tolist() == ["0+", "1+", "2+"]
    assert found.tail == "upper" and found.best_iou.tolist() == [0.3, 0.2, 0.09]
    # Two ends are silent.
    turned = signed().replace(fires=np.array([0, 50, 50, 50, 0, 50]))
    found, names = network_units.of_network(turned)
    assert names.tolist() == ["0-", "1+", "2-"]
    assert found.best_iou.tolist() == [0.25, 0.2, 0.04]
    assert unit_selection.parse("0,2-").units(3, "x", found).tolist() == [0, 2]
    unit_selection.parse("0,2-").check_names(turned)
    for result, there in ((None, "2"), (signed().replace(tail="lower"), "2-")):
        with pytest.raises(jdissect.UserError, match=rf"has 2\+, .* has {there}$"):
            unit_selection.parse("0,2+").check_names(result)
    with pytest.raises(jdissect.UserError, match="names unit 2 twice"):
        unit_selection.parse("2+,2-")
