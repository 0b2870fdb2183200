"""Labels verified from the command line: python -m jdissect.verify"""

import csv
import shutil

import numpy as np
import pytest

import jdissect.verification.run  # noqa: F401 (before a test lowers its limits)
from jdissect import main, verify
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line
from jdissect.verification import held_out, judgement
from jdissect.verification.verified import TABLE, read
from tests import small_runs
from tests.report import known


def run(capsys, *arguments):
    code = command_line.entry(verify.main, ["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_photographs(drawn_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(judgement, "FEWEST", 2)  # of 12 images in a half
    folder = tmp_path / "run"
    shutil.copytree(drawn_run, folder)
    code, text, error = run(capsys, folder, "--layers=layer4", "--all_units")
    assert code == 0, error
    assert "judged" in text and "verified" in text
    result = open_run(folder).result("layer4")
    found = read(folder / "layer4")
    assert found.result_hash and found.layer == "layer4"
    named = np.flatnonzero(result.best_concept >= 0)
    np.testing.assert_array_equal(found.unit, named)
    assert found.name == tuple(result.unit_names[named])
    np.testing.assert_array_equal(found.iou, result.best_iou[named])
    with (folder / "layer4" / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(named)
    assert found.way.count("held out") > 5
    for row, note in enumerate(found.note):
        assert np.isfinite(found.auc[row]) or note


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give one or more run directories"),
        (("RUN", "--pairs=9"), "pairs is 9; it must be a number from 10 to 1000"),
        (("RUN", "--layers=layer9"), "has no layer 'layer9'"),
        (("RUN", "--pair=20"), "did you mean --pairs"),
        (("NONE",), "does not hold a run"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, says):
    folder = small_runs.write(tmp_path / "run", small_runs.result())
    places = {"RUN": str(folder), "NONE": str(tmp_path / "none")}
    code, _, error = run(capsys, *(places.get(each, each) for each in arguments))
    assert code == 2 and says in error and error.count("\n") == 1


def test_no_labels(tmp_path, capsys):
    none = small_runs.result(iou_thresholds=(0.9,))
    folder = small_runs.write(tmp_path / "run", none)
    code, _, error = run(capsys, folder)
    assert code == 2 and "has no detector, so there is no label to verify" in error


def test_what_is_found_is_kept_where_nobody_reads_the_tables(tmp_path):
    folder = small_runs.write(tmp_path / "run", small_runs.result())
    opened = open_run(folder)
    found = known.make(opened.result("layer4")).verified

    def closed(text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        verify._write(opened, "layer4", found, closed)
    assert (folder / "layer4" / TABLE).is_file()


def test_photographs_without_counts_by_block(drawn_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(drawn_run, folder)
    for name in ("blocks.npz", "by_image.npz"):
        (folder / "layer4" / name).unlink(missing_ok=True)
    code, _, error = run(capsys, folder, "--layers=layer4", "--all_units")
    assert code == 2 and error.count("\n") == 1
    assert "counts by block of images were not kept" in error
    assert not (folder / "layer4" / TABLE).exists()


@pytest.mark.slow
def test_scenes(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [
        *("main", "--config=configs/mixup.py", "--config.data.num_images=100"),
        *("--config.report=False", f"--workdir={folder}"),
    ]
    assert command_line.entry(main.main, command) == 0
    capsys.readouterr()
    code, text, error = run(capsys, folder, "--pairs=12")
    assert code == 0, error
    assert "removed" in text and "repainted" in text
    found = read(folder / "layer4")
    assert found.judged.mean() > 0.7
    assert 0.2 < found.verified[found.judged].mean() < 0.9
    # The same pictures, drawn and judged once more.
    assert run(capsys, folder, "--pairs=12")[0] == 0
    again = read(folder / "layer4")
    np.testing.assert_array_equal(found.auc, again.auc)
    assert held_out.HELD_OUT in found.way
