"""A layer against chance: counts, files, and files that cannot be trusted."""

import csv
import json

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.chance_level import layer, stored
from tests import small_runs
from tests.chance_level import drawn


@pytest.fixture(scope="module")
def found():
    return drawn.dense(6, images=40)


@pytest.fixture(scope="module")
def result(found):
    return drawn.result(found)


@pytest.fixture(scope="module")
def chance(found, result):
    return layer.measure(result, found.images(), 20, 1)


def test_the_drawn_result_is_that_of_brute_force(found, result):
    np.testing.assert_array_equal(
        result.intersection / np.maximum(result.union, 1),
        drawn.iou(found, np.arange(40)),
    )


def test_counts_by_chance_are_those_of_each_permutation(chance, result):
    threshold = float(np.median(chance.null.iou))
    units, concepts = [], {"total": [], "object": [], "color": []}
    for iou, concept in zip(*chance.null, strict=True):
        there = {c for i, c in zip(iou, concept, strict=True) if i > threshold}
        units.append(int((iou > threshold).sum()))
        concepts["total"].append(len(there))
        for name in ("object", "color"):
            here = [c for c in there if result.categories[c] == name]
            concepts[name].append(len(here))
    assert chance.detectors(threshold) == (np.mean(units), sorted(units)[18])
    counts = chance.unique_concepts(threshold, result.categories)
    for name, several in concepts.items():
        assert counts[name] == (np.mean(several), sorted(several)[18]), name
    assert counts["material"] == (0, 0)
    share = (chance.null.iou > chance.level(0.2)).mean()
    assert 0.15 < share <= 0.2


def test_files_are_read_back(chance, result, tmp_path):
    folder = small_runs.write(tmp_path / "run", result) / "layer4"
    assert stored.read(folder) is None
    stored.write(folder, chance, result)
    again = stored.read(folder)
    assert (again.seed, again.permutations) == (1, 20)
    for first, second in (
        *zip(again.null, chance.null, strict=True),
        *zip(again.values, chance.values, strict=True),
        (again.sets.start, chance.sets.start),
        (again.sets.column, chance.sets.column),
    ):
        np.testing.assert_array_equal(first, second)
    with (folder / "chance.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["unit"] for row in rows] == [str(unit) for unit in range(drawn.UNITS)]
    for unit, row in enumerate(rows):
        assert float(row["iou"]) == result.best_iou[unit]
        assert float(row["q"]) == pytest.approx(chance.values.q[unit], rel=1e-5)
        names = [drawn.NAMES[column] for column in chance.sets.of(unit)]
        assert row["set"].removeprefix("'") == "; ".join(names)
    assert rows[0]["set"].startswith(result.concepts[result.best_concept[0]])
    about = json.loads((folder / "chance.json").read_text())
    assert about["permutations"] == 20
    at = about["iou_thresholds"]["0.04"]
    assert at["unique_concepts"] == result.unique_concepts(0.04)
    assert at["detector_units_by_chance"]["mean"] == chance.detectors(0.04).mean
    # Counts of another run are not shown; those of a layer that is saved anew are gone.
    path = folder.parent / "summary.json"
    path.write_text(
        path.read_text().replace('"result_hash": "0"', '"result_hash": "1"')
    )
    assert stored.read(folder) is None
    result.save(folder)
    assert not (folder / "chance.json").exists()


def damage(folder, name, values):
    with np.load(folder / "chance.npz") as file:
        arrays = dict(file)
    arrays[name] = values(arrays[name])
    np.savez(folder / "chance.npz", **arrays)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("q", lambda q: q * np.nan, "'q' has a value outside 0 .. 1"),
        ("p", lambda p: p[:-1], "'p' is float64 of shape .4,., which does not fit 5"),
        ("null_concept", lambda c: c + 9, "'null_concept' has a value outside -1 .. 6"),
        ("set_column", lambda c: c - 9, "'set_column' has a value outside 0 .. 6"),
        ("set_start", lambda s: s[::-1], "'set_start' does not divide the sets"),
        ("p_exact", lambda p: p.astype(object), "Python objects"),
    ],
)
def test_damaged_arrays(chance, result, tmp_path, name, values, message):
    folder = small_runs.write(tmp_path / "run", result) / "layer4"
    stored.write(folder, chance, result)
    damage(folder, name, values)
    with pytest.raises(UserError, match=message):
        stored.read(folder)


@pytest.mark.parametrize(
    "key, value, message",
    [("seed", -1, "seed is -1"), ("format_version", 2, "format_version is 2, not 1")],
)
def test_damaged_json(chance, result, tmp_path, key, value, message):
    folder = small_runs.write(tmp_path / "run", result) / "layer4"
    stored.write(folder, chance, result)
    path = folder / "chance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=message):
        stored.read(folder)


def test_other_images_than_those_that_were_counted(found, result):
    images = list(found.images())
    with pytest.raises(UserError, match="the images no longer give the IoUs"):
        layer.measure(result, images[:-1], 20, 0)
    images[3] = images[3]._replace(unit=images[3].unit[5:], pixel=images[3].pixel[5:])
    with pytest.raises(UserError, match="the images no longer give the IoUs"):
        layer.measure(result, images, 20, 0)


@pytest.mark.parametrize(
    "permutations, alpha, message",
    [
        (
            19,
            0.05,
            "--permutations is 19; at --alpha=0.05 it must be from 20 to 10,000",
        ),
        (99, 0.01, "must be from 100 to"),
        (10**7, 0.05, "must be from 20 to"),
        (100, 0.0, "--alpha is 0; it must be above 0"),
        (100, float("nan"), "--alpha is nan"),
    ],
)
def test_too_few_permutations(permutations, alpha, message):
    with pytest.raises(UserError, match=message):
        layer.check(permutations, alpha)
    layer.check(20, 0.05)
    layer.check(100, 0.01)


def test_a_layer_without_blocks_or_images(result, found):
    with pytest.raises(UserError, match="x cannot be compared .* were not kept"):
        layer.check_result(result.replace(blocks=None), "x")
    few = drawn.result(drawn.dense(6, images=5))
    with pytest.raises(UserError, match="too few images: 5"):
        layer.check_result(few, "x")
