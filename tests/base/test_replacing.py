"""What is finished stays until what replaces it is whole, wherever that is cut off."""

import contextlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

import jdissect
from jdissect.base import replacing
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.checkpoints import weights
from jdissect.results.finished_run import open_run
from jdissect.results.run_directory import Run
from jdissect.scenes import open_scenes
from jdissect.scenes.export import export
from jdissect.training.run_directory import RunDirectory
from tests import fake_bucket, small_runs

CONCEPTS = small_runs.CONCEPTS[:3]


class Kill(BaseException):
    """What no code of ours handles."""


@contextlib.contextmanager
def killed_after(count, monkeypatch):
    """Whatever changes the disk works so often, and never again: not in cleaning up.

    Yields:
      a list; it is empty if all was over before.
    """
    left, cut = [count], []

    def limited(function):
        def call(*arguments, **options):
            if left[0] == 0:
                cut.append(function.__name__)
                raise Kill
            left[0] -= 1
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "open", "unlink", "rmdir"):
            patch.setattr(os, name, limited(getattr(os, name)))
        for name in ("unlink", "replace", "rename", "mkdir", "rmdir"):
            patch.setattr(pathlib.Path, name, limited(getattr(pathlib.Path, name)))
        with contextlib.suppress(Kill):
            yield cut


def result(seed, layer="layer4"):
    return small_runs.result(seed, 4, CONCEPTS, 6, layer)


def run_of(folder, seed):
    return Run(folder, {"images": "one hash", "seed": seed})


def dissect(folder, seed, layers, overwrite=False):
    """A run as the command makes it, of other layers than another may have."""
    run = run_of(folder, seed)
    if run.is_finished(overwrite):
        run.settle()
        return
    run.begin({"seed": seed}, layers)
    names = [f"image {number}" for number in range(6)]
    found = {layer: result(seed, layer) for layer in layers}
    run.finish(
        found=found,
        names=names,
        hashes=[digest(name) for name in names],
        skipped={},
        images=6,
        seconds={},
    )


def seed_of(found):
    """Which of the runs a layer is of; it is that one throughout."""
    for seed in (1, 2):
        expected = result(seed, found.layer)
        if np.array_equal(found.thresholds, expected.thresholds):
            for name in ("intersection", "union", "top_value", "top_map"):
                np.testing.assert_array_equal(
                    getattr(found, name), getattr(expected, name)
                )
            return seed
    raise AssertionError("a mixture")


OLD, NEW = ("layer3", "layer4"), ("layer4", "head")


def check_run(folder):
    """The seed of the run that is there; all of it is of one run."""
    run = open_run(folder)
    seed = run.config["seed"]
    assert run.layers == {1: OLD, 2: NEW}[seed] and run.name == folder.name
    assert run.identity["seed"] == seed
    assert {seed_of(run.result(layer)) for layer in run.layers} == {seed}
    for layer in run.layers:
        assert seed_of(jdissect.load(folder / layer)) == seed
    return seed


def all_names(folder):
    """But for the files aside that a kill leaves."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in found if not name.rpartition("/")[2].startswith(".")}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A finished run, and what a page and a person have added to it."""
    folder = tmp_path_factory.mktemp("old") / "run"
    dissect(folder, 1, OLD)
    (folder / "report.html").write_text("of the old run")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "run"
    dissect(folder, 2, NEW)
    return folder


@pytest.mark.parametrize("count", [0, 4, 15, 40])
def test_a_run_stays_while_the_new_one_is_made(old, new, tmp_path, monkeypatch, count):
    folder = shutil.copytree(old, tmp_path / "run")
    with killed_after(count, monkeypatch) as cut:
        dissect(folder, 2, NEW, overwrite=True)
    assert cut and check_run(folder) == 1
    assert all_names(old) <= all_names(folder)
    # The same command again.
    dissect(folder, 2, NEW, overwrite=True)
    assert check_run(folder) == 2
    assert all_names(folder) == all_names(new) | {"notes.txt"}


@pytest.mark.parametrize("links", [pytest.param(True, marks=pytest.mark.slow), False])
def test_runs_are_switched_whenever_that_is_killed(
    old, new, tmp_path, monkeypatch, links
):
    """At each step: one of the two can be read, and the same command ends it."""
    if not links:

        def refuse(*arguments):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    seeds = []
    place = f"next-{run_of(old, 2).result_hash[:12]}"
    for count in range(0, 300, 2 if links else 9):
        folder = shutil.copytree(old, tmp_path / "run")
        shutil.copytree(new, folder / place)
        with killed_after(count, monkeypatch) as cut:
            run_of(folder, 2).settle()
        seeds.append(check_run(folder))
        if cut:
            dissect(folder, 2, NEW, overwrite=True)
        assert all_names(folder) == all_names(new) | {"notes.txt"}
        if not cut:
            break
        shutil.rmtree(folder)
    assert not cut and seeds == sorted(seeds) and {1, 2} == set(seeds)


def test_overwrite_resumes_what_it_began(tmp_path):
    dissect(tmp_path, 1, OLD)
    run = run_of(tmp_path, 2)
    with pytest.raises(UserError, match="different: seed.*--overwrite to replace it"):
        run.is_finished(False)
    assert not run.is_finished(True)
    run.begin({}, NEW)
    assert run.place.parent == tmp_path and run.place.name == (
        f"next-{run.result_hash[:12]}"
    )
    state = run.checkpoints / "00000001"
    state.mkdir(parents=True)
    assert not run.abandon()  # something was saved
    again = run_of(tmp_path, 2)
    assert not again.is_finished(True)
    again.begin({}, NEW)
    assert again.checkpoints == run.checkpoints and state.is_dir()
    assert check_run(tmp_path) == 1
    # The old command still reads the old run, and another replaces both.
    assert run_of(tmp_path, 1).is_finished(False)
    other = run_of(tmp_path, 3)
    assert not other.is_finished(True)
    other.begin({}, NEW)
    assert other.place != again.place and other.abandon()
    assert check_run(tmp_path) == 1 and state.is_dir() and not other.place.exists()


def test_an_unfinished_run_of_something_else_leaves_no_state(tmp_path, monkeypatch):
    """A kill between the two would have counted on with another run's numbers."""
    for count in range(40):
        folder = tmp_path / str(count)
        old = run_of(folder, 1)
        assert not old.is_finished(False)
        old.begin({}, OLD)
        (old.checkpoints / "00000001").mkdir(parents=True)
        new = run_of(folder, 2)
        assert not new.is_finished(True) and new.place == folder
        with killed_after(count, monkeypatch) as cut:
            new.begin({}, NEW)
        summary = json.loads((folder / "summary.json").read_bytes())
        of_new = summary["result_hash"] == new.result_hash
        assert not (of_new and new.checkpoints.exists())
        if not cut:
            break
    assert not cut and of_new


def test_a_run_in_a_bucket_is_replaced(monkeypatch):
    with fake_bucket.installed(monkeypatch) as bucket:
        dissect("gs://fake/run", 1, OLD)
        old = {name: bucket.get(name)[0] for name in bucket.names()}
        for count in range(200):
            changes = [count]

            def limited(method, name, changes=changes):
                if method == "put":
                    if changes[0] == 0:
                        raise OSError("Forbidden")
                    changes[0] -= 1

            bucket.refuse = limited
            cut = False
            try:
                dissect("gs://fake/run", 2, NEW, overwrite=True)
            except UserError:
                cut = True
            bucket.refuse = None
            run = open_run("gs://fake/run")
            seed = run.config["seed"]
            assert {seed_of(run.result(layer)) for layer in run.layers} == {seed}
            if not cut:
                break
            for name in bucket.names():
                bucket.delete(name)
            for name, content in old.items():
                bucket.put(name, content)
        assert seed == 2 and count > 20
        assert not [name for name in bucket.names() if "next-" in name]
        assert not [name for name in bucket.names() if "layer3" in name]


def test_a_result_is_replaced_whenever_it_is_killed(tmp_path, monkeypatch):
    """As `Result.save` does it; nothing of an older one is taken for the new one's."""
    new = result(2).replace(top_map=None, by_image=None, blocks=None)
    for count in range(0, 200, 3):
        folder = tmp_path / str(count)
        result(1).save(folder)
        with killed_after(count, monkeypatch) as cut:
            new.save(folder)
        found = jdissect.load(folder)
        assert (found.top_map is None) == (found.thresholds[0] == new.thresholds[0])
        if not cut:
            break
        new.save(folder)
        assert jdissect.load(folder).by_image is None
        shutil.rmtree(folder)
    assert not cut and count > 20
    assert found.top_map is None and found.blocks is None
    assert not list(folder.glob("next-*")) and not list(folder.glob(".*"))


def save_network(folder, seed):
    array = np.full(3, seed, np.float32)
    description = {"kind": "classifier", "architecture": {"name": "tiny"}}
    weights.save(folder, {"w": array}, description, overwrite=True, tensors=True)


def seed_of_network(folder):
    return int(weights.load(folder)[0]["w"][0])


def test_a_network_is_replaced_whenever_it_is_killed(tmp_path, monkeypatch):
    for count in range(100):
        folder = tmp_path / str(count)
        save_network(folder, 1)
        with killed_after(count, monkeypatch) as cut:
            save_network(folder, 2)
        assert seed_of_network(folder) in (1, 2)
        if not cut:
            break
        save_network(folder, 2)
        assert all_names(folder) == {"model.json", "weights.safetensors"}
    assert not cut and seed_of_network(folder) == 2


def train(folder, seed, overwrite=False):
    directory = RunDirectory(folder, {"seed": seed})
    if directory.result(overwrite) is not None:
        directory.settle()
        return
    directory.begin({"seed": seed}, overwrite)
    directory.metrics.write_bytes(b'{"step": %d}\n' % seed)
    save_network(directory.model, seed)
    directory.finish({"seed": seed})


def test_a_training_is_replaced_whenever_it_is_killed(tmp_path, monkeypatch):
    for count in range(0, 200, 2):
        folder = tmp_path / str(count)
        train(folder, 1)
        with killed_after(count, monkeypatch) as cut:
            train(folder, 2, overwrite=True)
        seed = seed_of_network(folder / "model")
        assert RunDirectory(folder, {"seed": seed}).result(False) == {"seed": seed}
        if not cut:
            break
        train(folder, 2, overwrite=True)
        assert seed_of_network(folder / "model") == 2
        assert (folder / "metrics.jsonl").read_bytes() == b'{"step": 2}\n'
        assert not list(folder.glob("next-*"))
    assert not cut and seed == 2 and count > 20


def test_an_export_of_scenes_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    source, folder = open_scenes("probe", 2), tmp_path / "scenes"
    export(source, folder)
    before = all_names(folder)

    class Broken:
        split, num_images = source.split, 2

        def read(self, index):
            if index:
                raise Kill
            return source.read(index)

    with pytest.raises(Kill):
        export(Broken(), folder, overwrite=True)
    assert all_names(folder) == before
    export(open_scenes("probe", 1), folder, overwrite=True)
    assert "images/000/000001.png" not in all_names(folder)
    assert not list(folder.glob("next-*"))


def test_a_list_of_a_stranger_removes_nothing_elsewhere(tmp_path):
    dissect(tmp_path / "run", 1, OLD)
    (tmp_path / "letter.txt").write_text("dear")
    new = tmp_path / "run" / "next-0"
    dissect(new, 2, NEW)
    names = ["../letter.txt", "..", "", "/etc", 3, "layer3"]
    (new / "replaces.json").write_text(json.dumps(names))
    replacing.finish_interrupted(tmp_path / "run", "summary.json", lambda folder: [])
    assert (tmp_path / "letter.txt").exists()
    assert open_run(tmp_path / "run").config == {"seed": 2}
