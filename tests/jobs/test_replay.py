"""A finished run opened again counts what the run counted."""

import json
import shutil

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.jobs.replay import open_replay
from jdissect.results.finished_run import open_run


def opened(folder, **options):
    with Progress(silent=True) as progress:
        return open_replay(open_run(folder), progress, **options)


def test_pairs_are_the_intersections(drawn_run):
    replay = opened(drawn_run)
    result = replay.run.result("layer4")
    found = np.zeros_like(result.intersection)
    for image in replay.images("layer4"):
        flat = image.columns.reshape(len(image.columns), -1)
        shown = np.zeros((found.shape[1] + 1, flat.shape[1]), int)
        shown[flat, np.arange(flat.shape[1])] = 1
        np.add.at(found, image.unit, shown[1:, image.pixel].T)
    assert found.any()
    np.testing.assert_array_equal(found, result.intersection)


def changed(folder, tmp_path, name, change):
    """A copy of the run with a changed JSON file."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((copy / name).read_text(encoding="utf-8"))
    change(content)
    (copy / name).write_text(json.dumps(content), encoding="utf-8")
    return copy


def test_a_key_that_an_older_version_lacked(drawn_run, tmp_path):
    copy = changed(drawn_run, tmp_path, "config.json", lambda c: c.pop("kernels"))
    assert opened(copy).inputs.config.kernels == ""


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda c: c["data"].update(path="gs://them/x"), "--data_path=gs://them/x"),
        (
            lambda c: c["model"].update(weights="gs://them/w"),
            "which is not contacted because a run directory names it",
        ),
        (lambda c: c["model"].update(units="head:gs://them/u"), "model.units is at"),
        (lambda c: c["model"].update(python="os:getcwd"), "--python=os:getcwd"),
        (lambda c: c.update(quantile="much"), "config.quantile is 'much'"),
        (lambda c: c["data"].update(num_images=23), "other images than then"),
        (lambda c: c.update(quantile=0.02), "other quantile than then"),
        (lambda c: c["model"].update(weights="gone"), "gone"),
    ],
)
def test_refusals(drawn_run, tmp_path, change, line):
    copy = changed(drawn_run, tmp_path, "config.json", change)
    with pytest.raises(UserError) as raised:
        opened(copy)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_other_counts(drawn_run, tmp_path):
    copy = shutil.copytree(drawn_run, tmp_path / "copy")
    path = copy / "layer4" / "dissection.npz"
    arrays = dict(np.load(path))
    arrays["thresholds"] = arrays["thresholds"] + np.float32(1e-3)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="units fire on other pixels"):
        list(opened(copy).images("layer4"))


def test_a_result_saved_by_itself(drawn_run, tmp_path):
    open_run(drawn_run).result("layer4").save(tmp_path / "own")
    with pytest.raises(UserError, match="saved by itself"):
        opened(tmp_path / "own")
