"""Trainings of several processes: the same as of one with as many devices."""

import contextlib
import json
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from jdissect.checkpoints import networks
from jdissect.checkpoints.run_state import Checkpoints
from tests.small_trainings import command, finish, metrics, start, weights

TIMEOUT = 900  # seconds, on a machine that does other things too


@contextlib.contextmanager
def started(arguments, folder, devices=1, each=((), ()), **options):
    """The processes of a run, each with arguments of its own too; killed in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = [
        *arguments,
        f"--coordinator_address={address}",
        f"--num_processes={len(each)}",
    ]
    processes = [
        start(
            [*common, f"--process_id={index}", *own], folder, devices=devices, **options
        )
        for index, own in enumerate(each)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(processes):
    """(exit code, standard output, lines of standard error) of each process."""
    found = []
    for process in processes:
        output, error = process.communicate(timeout=TIMEOUT)
        found.append((process.returncode, output, error.splitlines()))
    return found


def run_all(arguments, folder, **options):
    """Standard output of the first of the processes, when they are over."""
    with started(arguments, folder, **options) as processes:
        found = ended(processes)
    assert all(code == 0 for code, _, _ in found), found
    assert not any("epoch" in output for _, output, _ in found[1:])
    return found[0][1]


def refused(arguments, folder, message, **options):
    """All processes end with exit code 2 and one line of their own."""
    with started(arguments, folder, **options) as processes:
        found = ended(processes)
    for code, _, error in found:
        assert code == 2, found
        (line,) = [line for line in error if line.startswith("error: ")]
        assert message in line and not any("Traceback" in line for line in error)


def await_lines(folder, lines):
    """Until a training has written so many."""
    path, end = folder / "metrics.jsonl", time.monotonic() + TIMEOUT
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def arguments(class_folders):
    """Two epochs; a group of images is of both processes."""
    return [
        *command(class_folders),
        "--config.train.epochs=2",
        "--config.train.bn_group=8",
        "--config.augment.recipe=cutmix",
    ]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """The run directory of one process with two devices."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    finish(arguments, folder, devices=2)
    return folder


@pytest.mark.slow
def test_other_configs_are_refused(arguments, tmp_path):
    each = ((), ("--config.train.seed=5",))
    refused(arguments, tmp_path / "run", "0 and 1 differ in: train.seed;", each=each)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_four_devices_in_two_processes(arguments, tmp_path):
    """Here sums have another order."""
    finish(arguments, tmp_path / "one", devices=4)
    run_all(arguments, tmp_path / "two", devices=2)
    found = [networks.load(tmp_path / name / "model")[0] for name in ("one", "two")]
    for name, array in found[0].items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[1][name], array, atol=1e-5 * scale)
    losses = [
        [line["loss"] for line in metrics(tmp_path / name) if "loss" in line]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
def test_kill_goes_on_to_the_same_bits(arguments, alone, tmp_path):
    """Those of two devices: in as many processes, and in one with as many devices.

    Sums of two numbers have no order; errors of evaluations are among the metrics.
    """
    folder = tmp_path / "run"
    with started(arguments, folder) as processes:
        await_lines(folder, 4)
        for process in processes:
            process.kill()
    assert Checkpoints(folder / "checkpoints").steps()
    assert not (folder / "model").exists()
    shutil.copytree(folder, tmp_path / "other")
    output = run_all(arguments, folder)
    assert "resuming after step" in output
    assert "10 steps, 3 classes" in output and "on 15 images" in output
    assert "resuming after step" in finish(arguments, tmp_path / "other", devices=2)
    files = {path.name for path in alone.iterdir()}
    for run in (folder, tmp_path / "other"):
        assert metrics(run) == metrics(alone)
        assert weights(run) == weights(alone)
        assert {path.name for path in run.iterdir()} == files


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("index", [0, 1])
def test_nobody_waits_for_one_that_was_killed(arguments, tmp_path, index):
    folder = tmp_path / "run"
    with started([*arguments, "--config.train.epochs=2000"], folder) as processes:
        await_lines(folder, 8)
        processes[index].kill()
        start = time.monotonic()
        other = processes[1 - index]
        output, error = other.communicate(timeout=TIMEOUT)
        assert other.returncode not in (0, None)
        assert time.monotonic() - start < 60
    if other.returncode == 3:
        assert "another process of this run was lost" in error


@pytest.mark.slow
def test_sigterm_to_one_saves_and_ends_all(arguments, tmp_path):
    """To either one; the second time the training goes on from where it was."""
    folder = tmp_path / "run"
    long = [
        *arguments,
        "--config.train.epochs=2000",
        "--config.train.checkpoint_every=0",
    ]
    lines = before = 0
    for index in (1, 0):
        with started(long, folder) as processes:
            await_lines(folder, lines + 3)
            processes[index].send_signal(signal.SIGTERM)
            found = ended(processes)
        assert [code for code, _, _ in found] == [128 + signal.SIGTERM] * 2, found
        step = Checkpoints(folder / "checkpoints").steps()[-1]
        assert f"stopped after step {step};" in found[0][1]
        assert "stopped" not in found[1][1]
        if before:
            assert f"resuming after step {before} " in found[0][1] and step > before
        else:
            status = json.loads((folder / "training.json").read_text())["status"]
            assert status == "running"
        lines, before = (folder / "metrics.jsonl").read_bytes().count(b"\n"), step


@pytest.fixture
def one_damaged(arguments, class_folders, tmp_path):
    """A picture that no process can read, in batches of one picture a process."""
    shutil.copytree(class_folders, tmp_path / "pictures")
    (tmp_path / "pictures" / "train" / "red" / "0.png").write_bytes(b"no picture")
    return [
        *arguments,
        f"--config.data.path={tmp_path / 'pictures'}",
        "--config.train.batch_size=2",
        "--config.train.bn_group=2",
    ]


@pytest.mark.slow
def test_what_one_cannot_read_ends_all(one_damaged, tmp_path):
    folder = tmp_path / "run"
    refused(one_damaged, folder, "no image of a batch can be read, such as red/0.png")
    strict = "--config.data.strict=True"
    message = "image red/0.png cannot be read"
    refused([*one_damaged, strict], folder, message, each=((), ()))
    assert not (folder / "model").exists()


@pytest.mark.slow
def test_what_cannot_be_shared_is_refused(arguments, tmp_path):
    folder = tmp_path / "run"
    pmap = "--config.parallel=pmap"
    refused([*arguments, pmap], folder, "use shard_map for several")
    size = "--config.train.batch_size=9"
    message = "config.train.batch_size is 9, which 4 devices cannot share evenly"
    refused([*arguments, size], folder, message, devices=2)
    mine = (f"--workdir={tmp_path / 'a'}",), (f"--workdir={tmp_path / 'b'}",)
    refused(arguments, None, "0 and 1 differ in: workdir", each=mine)


@pytest.mark.slow
def test_evaluation_counts_the_same(arguments, alone, class_folders, tmp_path):
    """15 pictures in steps of 4 and 3 a process: some are padding."""
    split = ["--config.data.split=validation", f"--config.model.weights={alone}/model"]
    outputs = []
    for name, size in (("one", 4), ("two", 4), ("two", 3)):
        path = tmp_path / f"{name}{size}.json"
        evaluation = [
            *arguments,
            *split,
            f"--config.data.batch_size={size}",
            f"--output={path}",
        ]
        run = finish if name == "one" else run_all
        run(evaluation, None, entry="evaluate")
        outputs.append(json.loads(path.read_text()))
    assert outputs[0]["images"] == 15
    assert outputs[1] == outputs[0] and outputs[2] == outputs[0]


@pytest.mark.slow
def test_segmenter(tmp_path, monkeypatch):
    """Crops and flips are those of a picture's place in the order.

    With few optimizations, as compiling is most of it; the bits of a compilation are
    the matter of other tests.
    """
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    arguments = [
        "--config=configs/segmenter.py",
        "--config.data.batch_size=2",
        "--config.train.width=2",
        "--config.train.fpn_dim=4",
        "--config.train.image_size=48",
        "--config.train.window=96",
        "--config.train.grid=8",
        "--config.train.num_images=9",
        "--config.train.validation_images=5",
        "--config.train.epochs=1",
        "--config.train.batch_size=4",
        "--config.train.bn_group=4",
        "--config.train.log_every=1",
    ]
    options = {"entry": "train_segmenter"}
    finish(arguments, tmp_path / "one", devices=2, **options)
    run_all(arguments, tmp_path / "two", **options)
    found = [networks.load(tmp_path / name / "model")[0] for name in ("one", "two")]
    for name, array in found[0].items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[1][name], array, atol=1e-5 * scale)
    assert metrics(tmp_path / "two")[-1] == metrics(tmp_path / "one")[-1]
