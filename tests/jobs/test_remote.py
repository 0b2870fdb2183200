"""Work directory, weights and data in an object store: see `fake_bucket`."""

import contextlib
import importlib
import io
import json
import os
import pathlib
import pickle
import signal
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import jdissect
from jdissect import main, models
from jdissect.base import atomic_files, paths
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks, run_state
from jdissect.data import content_hashes
from jdissect.datasets.broden import open_broden
from jdissect.datasets.folder import open_folder
from jdissect.datasets.labelled import open_labelled
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime import command_line, consistency
from jdissect.runtime.processes import Processes
from jdissect.scenes import open_scenes
from jdissect.scenes.export import export
from jdissect.training.run_directory import Metrics, RunDirectory
from tests import fake_bucket, small_trainings

IMAGES = 7


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A network of two layers, and pictures with masks, on this disk."""
    root = tmp_path_factory.mktemp("here")
    patch = pytest.MonkeyPatch()
    patch.setitem(models.ARCHITECTURES, "tiny", small_trainings.Tiny)
    architecture = {"name": "tiny", "classes": 3}
    model = models.build(**architecture, rngs=nnx.Rngs(0))
    networks.save(
        root / "weights",
        models.parameters(model),
        networks.describe_classifier(architecture, IMAGENET),
        tensors=True,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        export(open_scenes("probe", IMAGES), root / "photos")
    (root / "photos/images/000/000000_z.png").write_bytes(b"no picture")
    yield root
    patch.undo()


@pytest.fixture
def bucket(folders, monkeypatch):
    """gs://fake with the same in it."""
    with fake_bucket.installed(monkeypatch) as objects:
        objects.upload(folders, "fake")
        yield objects


def dissect(place, workdir, cache, *arguments):
    """The exit code of a run on the pictures of a place."""
    given = [
        "--config=configs/mixup.py:imagenet",
        "--config.model.name=tiny",
        f"--config.model.weights={place}/weights",
        "--config.model.layers=second",
        "--config.data.source=broden",
        "--config.data.split=",
        f"--config.data.path={place}/photos",
        "--config.data.batch_size=2",
        "--config.segmenter.name=annotations",
        f"--config.cache.dir={cache}",
        f"--workdir={workdir}",
        *arguments,
    ]
    return command_line.entry(main.main, ["main", *given])


@pytest.fixture(scope="module")
def run_here(folders, tmp_path_factory):
    """The run directory, on this disk, of a run on this disk's pictures."""
    workdir = tmp_path_factory.mktemp("runs") / "here"
    assert dissect(folders, workdir, workdir.parent / "cache") == 0
    return workdir


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the program: (exit code, standard output, standard error)."""

    def call(*arguments):
        place, workdir, *more = arguments
        code = dissect(place, workdir, tmp_path / "cache", *more)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def assert_same(objects, name, folder):
    """A run in the bucket against the same on the disk."""
    for file in ("dissection.npz", "topk.npz", "histogram.npz"):
        there, _ = objects.get(f"{name}/second/{file}")
        with (
            np.load(io.BytesIO(there)) as found,
            np.load(folder / "second" / file) as (expected),
        ):
            assert set(found.files) == set(expected.files)
            for key in expected.files:
                np.testing.assert_array_equal(found[key], expected[key])
    for file in ("images.csv", "second/units.csv", "second/summary.json"):
        assert objects.get(f"{name}/{file}")[0] == (folder / file).read_bytes()
    found = json.loads(objects.get(f"{name}/summary.json")[0])
    expected = json.loads((folder / "summary.json").read_text())
    assert found["result_hash"] == expected["result_hash"]
    assert found["status"] == expected["status"] == "finished"
    assert not objects.names(f"{name}/checkpoints")


def test_a_run_in_a_bucket_equals_one_on_the_disk(run, bucket, run_here):
    code, output, _ = run("gs://fake", "gs://fake/run")
    assert code == 0 and "written to gs://fake/run" in output
    assert_same(bucket, "fake/run", run_here)
    result = jdissect.load("gs://fake/run/second")
    np.testing.assert_array_equal(
        result.thresholds, jdissect.load(run_here / "second").thresholds
    )
    assert list(jdissect.load("gs://fake/run")) == ["second"]
    # Nothing was made of the URL here.
    assert not pathlib.Path("gs:").exists()

    before = bucket.get("fake/run/second/dissection.npz")
    code, output, _ = run("gs://fake", "gs://fake/run")
    assert code == 0 and "gs://fake/run is finished (--overwrite" in output
    assert bucket.get("fake/run/second/dissection.npz") == before
    code, _, error = run("gs://fake", "gs://fake/run", "--config.quantile=0.02")
    assert code == 2 and "gs://fake/run holds another run (different: quantile)" in (
        error
    )
    bucket.put("fake/run/second/stale", b"")
    code, _, _ = run(
        "gs://fake", "gs://fake/run", "--config.quantile=0.02", "--overwrite"
    )
    assert code == 0 and jdissect.load("gs://fake/run/second").quantile == 0.02
    assert bucket.get("fake/run/second/stale") == (None, 0)
    code, _, error = run("gs://fake", "gs://fake/photos")
    assert code == 2 and "is not empty and not a run" in error


def test_a_run_goes_on(run, bucket, run_here, monkeypatch):
    save = run_state.Checkpoints.save

    def save_and_stop(kept, step, *what):
        save(kept, step, *what)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = "gs://fake", "gs://fake/run", "--config.checkpoint_every=1"
    with monkeypatch.context() as patch:
        patch.setattr(run_state.Checkpoints, "save", save_and_stop)
        assert run(*arguments)[0] == 143
    wholes = [
        n for n in bucket.names("fake/run/checkpoints/") if n.endswith("int.json")
    ]
    assert len(wholes) == run_state.KEEP
    # A later one that was cut off before its end.
    for name in bucket.names(wholes[-1].rpartition("/")[0] + "/state/"):
        cut_off = name.replace(wholes[-1].split("/")[3], "00000099")
        bucket.put(cut_off, bucket.get(name)[0])
    code, output, _ = run(*arguments)
    assert code == 0 and "resuming this run from its last save" in output
    assert_same(bucket, "fake/run", run_here)


@pytest.mark.slow
def test_folder_of_photographs(run, bucket, folders, tmp_path):
    """The last one is broken, and is noted though it comes after a save."""
    for place, workdir in ((folders, tmp_path / "run"), ("gs://fake", "gs://fake/run")):
        code, output, error = run(
            place,
            workdir,
            "--config.data.source=folder",
            f"--config.data.path={place}/photos/images/000",
            "--config.data.num_images=6",
            "--config.checkpoint_every=1",
            "--config.segmenter.name=colornames",
        )
        assert code == 0, error
        assert "skipped 1 of 6 images" in output and "000000_z.png" in output
    assert_same(bucket, "fake/run", tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.path=gs://fake/none"], "gs://fake/none has no index.csv"),
        (["--config.model.weights=gs://fake/none"], "gs://fake/none is missing"),
        (["--config.model.weights=gs://fake/photos"], "is not a checkpoint"),
        (["--config.model.weights=gcs://fake/weights"], "begin with gs://"),
        (["--config.cache.dir=gs://fake/cache"], "must be on a disk of this machine"),
        (["--config.data.source=scenes"], "must be on a disk of this machine"),
        (["--workdir=gs://fake/weights/model.json"], "is a file"),
        (["--workdir=gs://closed/run"], "gs://closed/run cannot be reached: Forbidden"),
        (["--workdir=gs://fake/read-only"], "config.json cannot be reached: Forbidden"),
    ],
)
def test_refusals(run, bucket, arguments, message):
    def refuse(method, name):
        closed = name.startswith("closed/")
        if closed or (method, name) == ("put", "fake/read-only/config.json"):
            raise OSError(f"Forbidden: {name}\nnot yours")

    bucket.refuse = refuse
    before = bucket.names()
    code, _, error = run("gs://fake", "gs://fake/run", *arguments)
    assert code == 2 and message in error and error.count("\n") == 1, error
    bucket.refuse = None
    assert bucket.names() == before


def test_missing_package(run, folders, monkeypatch):
    registry = importlib.import_module("fsspec.registry")
    if "gcs" in registry._registry:
        monkeypatch.delitem(registry._registry, "gcs")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    code, _, error = run(folders, "gs://fake/run")
    assert code == 2 and error == (
        "error: gs://fake/run needs a package: pip install gcsfs\n"
    )


def test_write_whole(bucket):
    atomic_files.write_whole("gs://fake/new/file", b"one")
    atomic_files.write_whole(paths.to_path("gs://fake/new/file"), b"two")
    assert bucket.get("fake/new/file")[0] == b"two"

    def refuse(method, name):
        raise FileNotFoundError(name) if "none" in name else OSError(28, "full")

    bucket.refuse = refuse
    with pytest.raises(UserError, match="no such bucket"):
        atomic_files.write_whole("gs://none/file", b"")
    with pytest.raises(UserError, match="cannot be reached: .*full"):
        atomic_files.write_whole("gs://fake/new/file", b"three")
    bucket.refuse = None
    assert bucket.get("fake/new/file")[0] == b"two"


def test_checkpoints_are_whole_or_not_there(bucket, capsys):
    kept = run_state.Checkpoints("gs://fake/checkpoints")
    assert kept.restore() is None
    for step in (1, 2, 3):
        kept.save(step, {"a": np.arange(4) + step}, {"note": step})
    assert kept.steps() == [2, 3]
    found, notes = kept.restore()
    assert notes["note"] == 3 and found["a"].tolist() == [3, 4, 5, 6]

    def cut_off(method, name):
        if (method, name) == ("put", "fake/checkpoints/00000004/checkpoint.json"):
            raise OSError("Forbidden")

    bucket.refuse = cut_off
    with pytest.raises(UserError, match="Forbidden"):
        kept.save(4, {"a": np.arange(4)}, {})
    bucket.refuse = None
    assert bucket.names("fake/checkpoints/00000004/state/") and kept.steps() == [2, 3]
    kept.save(4, {"a": np.arange(4) + 4}, {})
    assert kept.restore()[0]["a"].tolist() == [4, 5, 6, 7]
    # Damaged: passed over, and written anew.
    bucket.put("fake/checkpoints/00000004/state/manifest.ocdbt", b"")
    assert kept.restore()[1]["step"] == 3 and kept.steps() == [3]
    assert "skipping" in capsys.readouterr().err
    kept.save(4, {"a": np.arange(4)}, {})
    assert kept.steps() == [3, 4] and kept.restore()[0]["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("tensors", [False, True])
def test_weights(bucket, folders, tensors):
    parameters, description = networks.load("gs://fake/weights", "classifier")
    expected, _ = networks.load(folders / "weights")
    assert jax.tree.all(jax.tree.map(np.array_equal, parameters, expected))
    place = "gs://fake/copies/one"
    networks.save(place, parameters, description, tensors=tensors)
    found = networks.load_classifier(place, "tiny")
    assert found.weights_sha256 == description["weights_sha256"]
    with pytest.raises(UserError, match="exists; give another folder"):
        networks.check_output(place)
    # Cut off before its description: not there, and in nobody's way.
    bucket.delete("fake/copies/one/model.json")
    with pytest.raises(UserError, match="is not a checkpoint"):
        networks.load(place)
    networks.save(place, parameters, description, tensors=not tensors)
    networks.save(place, parameters, description, tensors=tensors, overwrite=True)
    assert bucket.get("fake/copies/one/params/commit_success.txt")[0] is None or (
        not tensors
    )
    networks.load(place)


def test_results_are_saved(bucket, run):
    assert run("gs://fake", "gs://fake/run")[0] == 0
    result = jdissect.load("gs://fake/run/second")
    result.save("gs://fake/elsewhere")
    for name in bucket.names("fake/elsewhere/"):
        there = name.replace("elsewhere", "run/second")
        assert bucket.get(name)[0] == bucket.get(there)[0]
    bucket.delete("fake/elsewhere/topk.npz")
    with pytest.raises(UserError, match="topk.npz cannot be read"):
        jdissect.load("gs://fake/elsewhere")


def test_sources_travel_to_worker_processes(bucket, folders):
    for there, here in (
        (open_broden("gs://fake/photos"), open_broden(str(folders / "photos"))),
        (open_folder("gs://fake/photos"), open_folder(str(folders / "photos"))),
    ):
        assert there.names == here.names
        again = pickle.loads(pickle.dumps(there))
        assert again == there and isinstance(again.root, type(there.root))
        np.testing.assert_array_equal(again.read(3).pixels, here.read(3).pixels)


def test_hashes_are_kept_while_size_and_time_are(bucket, folders, tmp_path):
    source = open_broden("gs://fake/photos")
    expected = open_broden(str(folders / "photos")).content_hashes(None)
    assert source.content_hashes(tmp_path) == expected
    read = []
    bucket.refuse = lambda method, name: read.append(name)
    assert source.content_hashes(tmp_path) == expected
    asked = len(read)
    assert source.content_hashes(None) == expected
    assert asked == IMAGES and len(read) > 2 * asked  # only looked at, then read
    bucket.refuse = None
    name = f"fake/photos/images/{source.names[2]}"
    bucket.put(name, bucket.get(name)[0][::-1])
    changed = source.content_hashes(tmp_path)
    assert [a == b for a, b in zip(changed, expected, strict=True)].count(False) == 1
    bucket.delete(name)
    assert source.content_hashes(tmp_path)[2] == content_hashes.UNREADABLE


def test_a_store_that_fails_condemns_no_image(bucket):
    source = open_folder("gs://fake/photos")

    def fail(method, name):
        raise ConnectionError("no route")

    bucket.refuse = fail
    with pytest.raises(UserError, match="cannot be reached: no route"):
        source.read(0)
    with pytest.raises(UserError, match="cannot be reached: no route"):
        source.content_hashes(None)


def test_class_folders(bucket):
    for name in ("train/red/a.png", "train/blue/b.png", "train/.hidden/c.png"):
        bucket.put(f"fake/classes/{name}", b"")
    config = main_config("gs://fake/classes")
    assert open_labelled(config, "train").classes == ("blue", "red")
    bucket.put("fake/classes/train/empty/notes.txt", b"")
    with pytest.raises(UserError, match="class folders without images: empty"):
        open_labelled(config, "train")


def main_config(path):
    import ml_collections

    return ml_collections.ConfigDict({"source": "folder", "path": path})


def test_training_directory(bucket):
    directory = RunDirectory("gs://fake/training", {"seed": 0})
    assert directory.result(False) is None
    directory.begin({}, False)
    metrics = Metrics(directory.metrics)
    metrics.append({"step": 1})
    length = metrics.length
    metrics.append({"step": 2})
    metrics.close()
    again = Metrics(directory.metrics, length)
    again.append({"step": 3})
    again.close()
    assert bucket.get("fake/training/metrics.jsonl")[0] == (
        b'{"step": 1}\n{"step": 3}\n'
    )
    directory.finish({"error": 1.0})
    again = RunDirectory("gs://fake/training", {"seed": 0})
    assert again.result(False) == {"error": 1.0}
    # What replaces it is made beside it.
    assert again.result(True) is None
    again.begin({}, True)
    assert bucket.names("fake/training/metrics.jsonl")
    Metrics(again.metrics).append({"step": 7})
    again.finish({"error": 2.0})
    assert RunDirectory("gs://fake/training", {"seed": 0}).result(False) == {
        "error": 2.0
    }
    assert bucket.get("fake/training/metrics.jsonl")[0] == b'{"step": 7}\n'
    assert not [name for name in bucket.names() if "next-" in name]


def test_all_processes_see_a_bucket(bucket, monkeypatch):
    """Two processes, of which this plays both."""
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, value])
    consistency.check_shared(Processes(0, 2), paths.to_path("gs://fake/run"))
    assert not bucket.names("fake/run/")
