"""Formulas of a run: python -m jdissect.compose"""

import importlib
import json

import numpy as np
import pytest

import jdissect
from jdissect import main
from jdissect.base.progress import Progress
from jdissect.formulas import stored
from jdissect.jobs.replay import open_replay
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line

# `jdissect.compose` is the function.
compose = importlib.import_module("jdissect.compose")


@pytest.fixture(scope="module")
def folder(tiny_classifier, drawn, tmp_path_factory):
    """A small run on annotated images."""
    here = tmp_path_factory.mktemp("compose")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    command = [
        "main",
        "--config=configs/efficientnet_lite0.py",
        *tiny_classifier,
        f"--config.data.path={drawn}",
        "--config.data.num_images=16",
        "--config.report=False",
        f"--workdir={here / 'run'}",
    ]
    assert command_line.entry(main.main, command) == 0
    yield here / "run"
    patch.undo()


def run(capsys, *arguments):
    code = command_line.entry(compose.main, ["compose", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_formulas_of_a_run(folder, capsys):
    code, text, error = run(capsys, folder, "--length=2", "--method=optimum")
    assert code == 0, error
    assert "up to 2" in text and "cross-fitted" in text and "written to" in text
    found = stored.read(folder / "layer4")
    result = open_run(folder).result("layer4")
    np.testing.assert_array_equal(found.concept_iou, result.best_iou)
    units = np.flatnonzero(found.lengths == 2)
    assert len(units)
    # The printed name is enough to compute the IoU from all pixels.
    with Progress(silent=True) as progress:
        images = list(open_replay(open_run(folder), progress).images("layer4"))
    for unit in units[:3]:
        common, union = recount(found.formulas[unit], unit, images, result)
        assert common / union == found.iou[unit]
        assert found.low[unit] <= found.iou[unit] <= found.high[unit]
    assert (found.iou >= found.beam_iou).all() and found.mean_iou[1] > 0


def recount(text, unit, images, result):
    """(intersection, union) by pixels of a formula of two concepts, from its name."""
    operator = next(o for o in (" OR ", " AND NOT ", " AND ") if o in text)
    names = text.split(operator)
    common = union = 0
    for image in images:
        masks, counts = [], []
        for name in names:
            name, _, category = name.partition(" (")
            column = next(
                column
                for column, pair in enumerate(
                    zip(result.concepts, result.categories, strict=True)
                )
                if pair[0] == name and category in ("", f"{pair[1]})")
            )
            masks.append((image.columns == column + 1).any(axis=0).reshape(-1))
            categories = list(dict.fromkeys(result.categories))
            counts.append(image.annotated[categories.index(result.categories[column])])
        if not any(counts):
            continue
        fires = np.zeros(masks[0].shape, bool)
        fires[image.pixel[image.unit == unit]] = True
        mask = {
            " OR ": masks[0] | masks[1],
            " AND ": masks[0] & masks[1],
            " AND NOT ": masks[0] & ~masks[1],
        }[operator]
        common += (mask & fires).sum()
        union += (mask | fires).sum()
    return int(common), int(union)


def test_as_a_function(folder):
    found = jdissect.compose(folder, layers="layer4", length=1)
    assert stored.read(folder / "layer4").settings.length == 1
    assert found.lengths.max() == 1 and found.formulas == found.concepts


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--length=0"], "length is 0"),
        (["--length=two"], "length"),
        (["--operators=or,xor"], "operators has 'xor'"),
        (["--beam=1000000000"], "GiB"),
        (["--method=optimum", "--length=4"], "up to 3 concepts"),
        (["--method=best"], "method"),
        (["--layers=layer9"], "has no layer 'layer9'"),
        (["--penalty=2"], "penalty is 2"),
        (["--lenght=2"], "did you mean --length?"),
    ],
)
def test_refusals(folder, capsys, arguments, line):
    code, _, error = run(capsys, folder, *arguments)
    assert code == 2 and line in error and len(error.splitlines()) == 1


def test_no_run(tmp_path, capsys):
    assert run(capsys)[0] == 2
    code, _, error = run(capsys, tmp_path)
    assert code == 2 and "does not hold a run" in error


def test_a_run_that_cannot_be_counted_again(folder, tmp_path, capsys):
    open_run(folder).result("layer4").save(tmp_path / "own")
    code, _, error = run(capsys, tmp_path / "own")
    assert code == 2 and "saved by itself" in error


def test_overwriting_a_result_removes_its_formulas(folder, tmp_path):
    result = open_run(folder).result("layer4")
    result.save(tmp_path)
    content = {"result_hash": ""}
    (tmp_path / "formulas.json").write_text(json.dumps(content))
    result.save(tmp_path)
    assert not (tmp_path / "formulas.json").exists()
