"""The five networks beside each other: python -m jdissect.study"""

import contextlib
import importlib
import io
import os
import signal
from pathlib import Path

import pytest

from jdissect import study
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.formulas import stored
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime import command_line
from jdissect.runtime.preemption import Terminated
from tests import small_runs
from tests.report import known
from tests.small_segmenters import draw

ARCHITECTURE = {"name": "resnet18", "width": 4, "classes": 16}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Five networks, one of which is known to be wrong in 12.5 %."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(study.NAMES):
        source = {"top1_error": 12.5} if name == "mixup" else {}
        description = networks.describe_classifier(
            ARCHITECTURE, IMAGENET, source=source
        )
        networks.save(folder / name, draw(ARCHITECTURE, seed), description)
    return folder


def run(capsys, *arguments):
    code = command_line.entry(study.main, ["study", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def command(weights, tmp_path_factory):
    """Arguments for all five; annotations are read as label maps."""
    return [
        f"--weights={weights}",
        f"--workdir={tmp_path_factory.mktemp('five') / 'study'}",
        "--config.model.name=resnet18",
        "--config.data.num_images=6",
        "--config.data.batch_size=6",
        "--config.segmenter.name=annotations",
        "--noreport",
    ]


@pytest.fixture(scope="module")
def done(command, tmp_path_factory):
    """(work directory, lines of standard output) of the five networks."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        assert command_line.entry(study.main, ["study", *command]) == 0
    return Path(command[1].partition("=")[2]), printed.getvalue().splitlines()


def test_five_networks_in_one_table(done):
    folder, output = done
    for name in study.NAMES:
        assert (folder / name / "layer4" / "dissection.npz").is_file()
    lines = [line.split() for line in output]
    start = next(i for i, line in enumerate(lines) if "network" in line)
    header = "IoU > network object part material color total"
    assert " ".join(lines[start]).startswith(header)
    rows = lines[start + 1 : start + 16]
    assert lines[start + 16] == []
    assert [row[0] for row in rows[::5]] == ["0.03", "0.04", "0.05"]
    for row in rows:
        name = next(i for i, cell in enumerate(row) if cell in study.NAMES)
        *counts, total = map(int, row[name + 1 : name + 6])
        assert total == sum(counts)
    assert [row[-2:] for row in rows if "mixup" in row] == [["12.50", "%"]] * 3
    figures = folder / "comparison"
    assert (figures / "unique_concepts.svg").read_text().count("saliencymix") >= 3
    # Six images are in too few blocks.
    assert any("No intervals" in line for line in output)


@pytest.mark.slow
def test_five_networks_again_are_read(command, done, capsys):
    again = run(capsys, *command)[1]
    assert again.splitlines()[6:] == done[1][6:]


@pytest.fixture
def called(monkeypatch):
    """Commands that were called, with the names of their runs."""
    called = []

    def main_of(command):
        def main(argv, tell=print):
            called.append((command, *(Path(part).name for part in argv[1:])))
            if command == "verify":
                raise UserError("no detector")
            tell("a table")
            return 0

        return main

    for name in ("compose", "chance", "verify", "scores", "page"):
        module = importlib.import_module(f"jdissect.{name}")
        monkeypatch.setattr(module, "main", main_of(name))
    return called


def test_more_finds_what_a_run_lacks(called, tmp_path, capsys):
    result = small_runs.result(1)
    folder = small_runs.write(tmp_path / "mine", result)
    stored.write(folder / "layer4", known.make(result).formulas)
    study._find_more(str(folder), "", True)
    names = ("chance", "verify", "scores", "page")
    assert called == [(name, "mine") for name in names]
    output = capsys.readouterr().out
    assert f"{folder}, chance: 0.0 s" in output and "verify: no detector" in output
    assert output.count("a table") == 1  # of the page
    called.clear()
    known.write(folder / "layer4", result)
    study._find_more(str(folder), "", True)
    assert called == []


def test_more_of_every_network(monkeypatch, tmp_path, capsys):
    found = []
    monkeypatch.setattr("jdissect.report.run_summary.dissect", lambda *_, **__: 0)
    monkeypatch.setattr(study, "_find_more", lambda *given: found.append(given))
    monkeypatch.setattr(
        "jdissect.results.finished_run.open_run", lambda folder: interrupt()
    )
    workdir = tmp_path / "study"
    run(capsys, f"--workdir={workdir}", "--more", "--config.cache.dir=/labels")
    assert found == [(f"{workdir}/{name}", "/labels", True) for name in study.NAMES]


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def terminate_saved():
    raise Terminated


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (terminate, 143, "terminated; the same command resumes from the last save\n"),
        (terminate_saved, 143, ""),
        (interrupt, 130, "interrupted; the same command resumes from the last save\n"),
    ],
)
def test_the_end_of_one_network_is_the_end_of_all(
    end, code, line, tmp_path, monkeypatch, capsys
):
    """And the same command goes on with it, also where it replaces runs."""
    done = []

    def dissect(config, folder, overwrite, tell):
        name = Path(folder).name
        if ending and name == "mixup":
            end()
        Path(folder).mkdir(parents=True, exist_ok=True)
        done.append((name, overwrite))
        return 0

    monkeypatch.setattr("jdissect.report.run_summary.dissect", dissect)
    monkeypatch.setattr(
        "jdissect.results.finished_run.open_run", lambda folder: interrupt()
    )
    command = f"--workdir={tmp_path / 'study'}", "--overwrite"
    ending = True
    assert run(capsys, *command)[::2] == (code, line)
    assert done == [("baseline", True), ("cutout", True)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    ending = False
    run(capsys, *command)
    assert done[2:] == [
        ("baseline", False),
        ("cutout", False),
        *[(name, True) for name in study.NAMES[2:]],
    ]
    # Another study replaces all of them.
    done.clear()
    run(capsys, *command, "--config.quantile=0.02")
    assert all(overwrite for _, overwrite in done)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["stray"], "unexpected argument 'stray'"),
        (["--nonsense"], "nonsense"),
        (["--config.quantle=1"], "unknown key config.quantle"),
        (["--variant=moon"], "configs/baseline.py has no variant 'moon'"),
        (["--weights=/nowhere"], "/nowhere/baseline"),
    ],
)
def test_bad_input(arguments, message, tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'study'}"
    code, output, error = run(capsys, workdir, *arguments)
    assert (code, output) == (2, "")
    assert message in error and len(error.splitlines()) <= 2
    assert not (tmp_path / "study").exists()
