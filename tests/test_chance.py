"""A run against chance from the command line: python -m jdissect.chance"""

import csv
import json
import shutil

import numpy as np
import pytest

from jdissect import chance
from jdissect.chance_level import stored
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line
from tests import small_runs


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = command_line.entry(chance.main, ["chance", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(drawn_run, tmp_path_factory):
    """A small run on annotated images, whose folder tests may write to."""
    return shutil.copytree(drawn_run, tmp_path_factory.mktemp("chance") / "run")


def test_a_run_against_chance(folder, capsys):
    code, text, error = run(capsys, folder, "--permutations=20", "--seed=4")
    assert code == 0, error
    found, result = stored.read(folder / "layer4"), open_run(folder).result("layer4")
    assert found.null.iou.shape == (20, len(result.thresholds)) and found.seed == 4
    assert f"layer4: {len(result.thresholds)} units, 24 images, 20 permuta" in text
    assert f"{int(found.found().sum())} of {len(result.thresholds)} units are" in text
    by_chance = found.detectors(0.04)
    row = [line.split() for line in text.splitlines() if line.startswith(" 0.04")][0]
    assert row[:3] == [
        "0.04",
        str(int(result.detectors(0.04).sum())),
        f"{by_chance.mean:.1f}",
    ]
    with (folder / "layer4" / "chance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["iou"]) for row in rows] == list(result.best_iou)
    # Sums over permutations do not hold what a permutation keeps: place.
    assert (np.array([float(row["chance_median"]) for row in rows]) > 0).any()
    about = json.loads((folder / "layer4" / "chance.json").read_text())
    assert (
        about["result_hash"]
        == json.loads((folder / "summary.json").read_text())["result_hash"]
    )
    # The run itself is as it was.
    assert open_run(folder).result("layer4").summary() == result.summary()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give one or more run directories"),
        (["RUN", "--permutations=10"], "--permutations is 10; at --alpha=0.05"),
        (["RUN", "--permutations=50", "--alpha=0.01"], "must be from 100 to 10,000"),
        (["RUN", "--alpha=1"], "--alpha is 1; it must be above 0"),
        (["RUN", "--seed=-1"], "--seed is -1; it must be 0"),
        (["RUN", "--layers=layer9"], "has no layer 'layer9'"),
        (["RUN", "--permutation=50"], "did you mean --permutations?"),
        (["nowhere"], "nowhere does not hold a run"),
    ],
)
def test_refusals(folder, capsys, arguments, message):
    there = [str(folder) if word == "RUN" else word for word in arguments]
    code, _, error = run(capsys, *there)
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_run_without_blocks_and_one_of_few_images(tmp_path, capsys):
    plain = small_runs.write(tmp_path / "plain", small_runs.result(blocks=None))
    code, _, error = run(capsys, plain)
    assert code == 2 and "counts by block of images were not kept" in error
    few = small_runs.write(tmp_path / "few", small_runs.result(images=5))
    code, _, error = run(capsys, few)
    assert code == 2 and "too few images: 5" in error and error.count("\n") == 1


def test_counts_that_are_not_those_of_the_images(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in stored.ARRAYS, stored.TABLE, stored.ABOUT:
        (copy / "layer4" / name).unlink(missing_ok=True)
    path = copy / "layer4" / "dissection.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["union"] = arrays["union"] + 7
    np.savez_compressed(path, **arrays)
    code, _, error = run(capsys, copy, "--permutations=20")
    assert code == 2 and "no longer give the IoUs that are stored" in error
    assert not (copy / "layer4" / stored.ABOUT).exists()
