"""A dissection that is interrupted: what it leaves, what it says, how it ends."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from flax import nnx

from jdissect import main, models
from jdissect.base import atomic_files
from jdissect.checkpoints import networks, orbax_io, run_state
from jdissect.converters import command
from jdissect.dissection.resume import Journal
from jdissect.models.preprocess import IMAGENET
from jdissect.results import run_directory
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line
from jdissect.runtime.preemption import Terminated
from jdissect.scenes import open_scenes
from jdissect.scenes.export import export
from tests import small_trainings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of two layers, in Orbax's format, and pictures with masks."""
    root = tmp_path_factory.mktemp("mühle")
    patch = pytest.MonkeyPatch()
    patch.setitem(models.ARCHITECTURES, "tiny", small_trainings.Tiny)
    architecture = {"name": "tiny", "classes": 3}
    networks.save(
        root / "gewichte ä",
        models.parameters(models.build(**architecture, rngs=nnx.Rngs(0))),
        networks.describe_classifier(architecture, IMAGENET),
    )
    photos = root / "bilder ö"
    export(open_scenes("probe", 5), photos)
    (photos / "images/000/000003.png").rename(photos / "images/000/drei é.png")
    for name in ("index.csv", "label.csv"):
        text = (photos / name).read_text(encoding="utf-8")
        text = text.replace("000/000003.png", "000/drei é.png")
        text = text.replace(",tree,", ",Bäume,").replace(",sky,", ",\u7a7a,")
        (photos / name).write_text(text, encoding="utf-8")
    yield root
    patch.undo()


def arguments(folder, workdir):
    return [
        "main",
        "--config=configs/mixup.py:imagenet",
        "--config.model.name=tiny",
        f"--config.model.weights={folder}/gewichte ä",
        "--config.model.layers=second",
        "--config.data.source=broden",
        "--config.data.split=",
        f"--config.data.path={folder}/bilder ö",
        "--config.data.batch_size=1",
        "--config.segmenter.name=annotations",
        f"--config.cache.dir={folder}/cache",
        "--config.checkpoint_every=1",
        f"--workdir={workdir}",
    ]


@pytest.fixture
def run(folder, tmp_path, capsys):
    def call(*more):
        code = command_line.entry(
            main.main, [*arguments(folder, tmp_path / "run"), *more]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def after(monkeypatch, home, name, act):
    """Does something after the first call of a function."""
    function = getattr(home, name)

    def call(*arguments, **options):
        function(*arguments, **options)
        act()

    monkeypatch.setattr(home, name, call)


def interrupt():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


RESUMES = "the same command resumes from the last save\n"


@pytest.mark.slow
def test_interrupted_after_a_save(run, tmp_path, monkeypatch):
    """SIGTERM at the end of all leaves a finished run and still ends a study."""
    with monkeypatch.context() as patch:
        after(patch, run_state.Checkpoints, "save", interrupt)
        assert run()[::2] == (130, f"interrupted; {RESUMES}")
    summary = json.loads((tmp_path / "run" / "summary.json").read_bytes())
    assert summary["status"] == "running"
    with monkeypatch.context() as patch:
        after(patch, run_directory.Run, "finish", terminate)
        code, output, error = run()
    assert code == 143 and "resuming this run from its last save" in output
    finished = f"{tmp_path / 'run'} is finished, without its report.html\n"
    assert error == f"terminated; {finished}"
    assert open_run(tmp_path / "run").images == 5
    code, output, _ = run()
    assert code == 0 and "is finished (--overwrite" in output


@pytest.mark.parametrize(
    ("act", "ending"),
    [(interrupt, (130, "interrupted\n")), (terminate, (143, "terminated\n"))],
)
def test_interrupted_before_a_save(run, tmp_path, monkeypatch, act, ending):
    """Outside of a pass SIGTERM ends at once, and nothing is left."""
    after(monkeypatch, run_directory.Run, "begin", act)
    assert run()[::2] == ending
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("act", "ending"),
    [(interrupt, (130, "interrupted\n")), (terminate, (143, "terminated\n"))],
)
def test_every_program_ends_in_a_line(act, ending, tmp_path, capsys):
    """Wherever it is; a converter, too."""
    assert command_line.entry(lambda argv: act(), ["any"]) == ending[0]
    assert capsys.readouterr() == ("", ending[1])
    flags = ["convert", "--checkpoint=file", f"--output={tmp_path / 'out'}"]
    assert command.execute(flags, "", lambda options: act()) == ending[0]
    assert capsys.readouterr() == ("", ending[1])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not list(tmp_path.iterdir())


def test_sigterm_before_the_first_step_and_after_the_last(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(Terminated), journal.terminable():
        terminate()
        raise AssertionError("it went on")
    journal, went_on = Journal(tmp_path), []
    journal._begun = True
    with pytest.raises(Terminated), journal.terminable():
        terminate()
        went_on.append(True)
    assert went_on


def test_a_disk_that_is_full(run, tmp_path, monkeypatch):
    """Of a run of which nothing could be saved nothing is left."""

    def full(path, tree):
        path.mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(orbax_io, "write", full)
        code, _, error = run()
    assert code == 2 and error.count("\n") == 1
    assert "No space left" in error.splitlines()[-1]
    assert not (tmp_path / "run").exists()

    def no_results(path, content):
        if path.name == "topk.npz":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        atomic_files.write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("jdissect.results.layer_result.write_whole", no_results)
        code, _, error = run("--config.checkpoint_every=1000")
    assert code == 2 and "topk.npz" in error
    assert not (tmp_path / "run").exists()


def test_threads_and_files_leave_the_umask_alone(tmp_path):
    """Several write at once while another one makes files as `open` does."""
    previous = os.umask(0o077)
    stop, odd = threading.Event(), []

    def write(number):
        for count in range(60):
            atomic_files.write_whole(tmp_path / f"{number}-{count % 5}", b"content")

    def watch():
        count = 0
        while not stop.is_set():
            path = tmp_path / f"watched-{count}"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
            odd.extend({path.stat().st_mode & 0o777} - {0o600})
            path.unlink()
            count += 1

    threads = [threading.Thread(target=write, args=[n]) for n in range(4)]
    watcher = threading.Thread(target=watch)
    try:
        for thread in (watcher, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        watcher.join()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(previous)
    assert not odd
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    os.umask(0o002)
    try:
        atomic_files.write_whole(tmp_path / "0-0", b"shared with a group")
    finally:
        os.umask(previous)
    assert (tmp_path / "0-0").stat().st_mode & 0o777 == 0o664


ASCII = """
import sys
from jdissect.runtime import command_line
from jdissect import compare, main, models
from jdissect.datasets.folder import open_folder
from tests import small_trainings

models.ARCHITECTURES["tiny"] = small_trainings.Tiny
workdir, photos, output = sys.argv[1:4]
command = sys.argv[4:]
for _ in range(2):
    code = command_line.entry(main.main, command)
    assert code == 0, code
names = open_folder(photos).names
print(ascii([name for name in names if "drei" in name]))
print("\\u7a7a")
sys.exit(command_line.entry(compare.main, ["compare", workdir, f"--output={output}"]))
"""


@pytest.mark.slow
def test_a_locale_without_letters(folder, run, tmp_path):
    """Names, numbers and files are those of any other locale."""
    assert run()[0] == 0
    workdir, output = tmp_path / "läufe" / "rün", tmp_path / "größen"
    done = subprocess.run(
        [
            *(sys.executable, "-c", ASCII, workdir, folder / "bilder ö", output),
            *arguments(folder, workdir),
        ],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii:strict",
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode("ascii")
    assert "is finished (--overwrite" in told and r"\u7a7a" in told
    assert "drei \\xe9.png'" in told
    here, there = open_run(tmp_path / "run"), open_run(workdir)
    assert here.names == there.names and "000/drei é.png" in here.names
    read = [
        json.loads((place / "summary.json").read_bytes())
        for place in (tmp_path / "run", workdir)
    ]
    assert read[0]["result_hash"] == read[1]["result_hash"]
    for name in ("images.csv", "second/units.csv", "second/summary.json"):
        assert (workdir / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert there.config["data"]["path"] == here.config["data"]["path"]
    assert "Bäume" in here.result("second").concepts
    with (output / "counts.csv").open(encoding="utf-8", newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"rün"}
    report = json.loads((output / "comparison.json").read_bytes())
    assert report["models"][0]["run"] == workdir.name
