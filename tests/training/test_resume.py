"""A training that is interrupted goes on to the same bits."""

import os
import random
import shutil
import signal

import jax.numpy as jnp
import pytest

from jdissect import train
from jdissect.base.errors import UserError
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.training import train_classifier
from jdissect.training.batches import TrainingBatch
from jdissect.training.loop import Loop, Plan
from jdissect.training.run_directory import RunDirectory
from tests.small_trainings import command, finish, interrupt, metrics, run, weights

# Three epochs of five steps on scenes.
SCENES = [
    "--config=configs/mixup.py",
    "--config.model.name=tiny",
    "--config.data.batch_size=8",
    "--config.train.width=4",
    "--config.train.image_size=32",
    "--config.train.num_images=22",
    "--config.train.validation_images=8",
    "--config.train.epochs=3",
    "--config.train.batch_size=4",
    "--config.train.bn_group=4",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=2",
]


def kill(arguments, folder):
    """Starts a training and ends it by kill -9 at a random moment within an epoch.

    An epoch is five lines of metrics.jsonl and one of its evaluation; checkpoints are
    of steps 2, 4, 5, 6, 8, 10...
    """
    seed = random.randrange(10**6)
    print("seed", seed)
    draws = random.Random(seed)
    for _ in range(5):
        lines, delay = draws.choice([3, 4, 9]), draws.uniform(0, 0.02)
        killed = interrupt(arguments, folder, lines, signal.SIGKILL, delay)
        if killed is not None:
            break
        shutil.rmtree(folder)  # it was over before the signal came
    assert killed[0] == -signal.SIGKILL
    assert not (folder / "model").exists()
    assert Checkpoints(folder / "checkpoints").steps()
    # What was written after the last checkpoint is written anew.
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 77.0}\n')


def terminate(arguments, folder):
    """Goes on with a training and ends it by SIGTERM."""
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    stopped = interrupt(arguments, folder, lines + 2, signal.SIGTERM, 0)
    assert stopped is not None, "it was over before the signal came"
    code, output = stopped
    assert code == 128 + signal.SIGTERM and "resuming after step" in output
    assert "stopped after step" in output and not (folder / "model").exists()


@pytest.mark.slow
def test_kill_on_scenes(tmp_path):
    """The bits of a training that was left alone."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    finish(SCENES, whole)
    kill(SCENES, folder)
    output = finish(SCENES, folder)
    assert "resuming after step" in output and "15 steps, 16 classes" in output
    assert metrics(folder) == metrics(whole)
    assert weights(folder) == weights(whole)


@pytest.mark.slow
def test_kill_and_sigterm_on_folders(class_folders, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    arguments = command(class_folders, "resnet18")
    finish(arguments, whole)
    kill(arguments, folder)
    terminate(arguments, folder)
    assert "resuming after step" in finish(arguments, folder)
    assert metrics(folder) == metrics(whole)
    assert weights(folder) == weights(whole)


@pytest.fixture(scope="module")
def undisturbed(class_folders, tmp_path_factory):
    """Runs the tiny training once; returns its metrics and the hash of its weights."""
    found = []

    def result(capsys):
        if not found:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            arguments = command(class_folders)
            code, _, error = run(capsys, train, *arguments, f"--workdir={folder}")
            assert code == 0, error
            found.extend([metrics(folder), weights(folder)])
        return found

    return result


@pytest.fixture
def stopped(class_folders, tiny, capsys, tmp_path, monkeypatch):
    """(command, folder) of a training that SIGTERM ended within epoch 2."""
    arguments = command(class_folders)
    folder = tmp_path / "run"
    batches = train_classifier.training_batches

    def interrupted(*arguments, epoch, **options):
        for number, batch in enumerate(batches(*arguments, epoch=epoch, **options)):
            if (epoch, number) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(train_classifier, "training_batches", interrupted)
        code, output, _ = run(capsys, train, *arguments, f"--workdir={folder}")
    assert code == 128 + signal.SIGTERM and "stopped after step 8" in output
    assert Checkpoints(folder / "checkpoints").steps() == [6, 8]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return [*arguments, f"--workdir={folder}"], folder


def test_sigterm_within_an_epoch(stopped, undisturbed, capsys):
    arguments, folder = stopped
    code, output, _ = run(capsys, train, *arguments)
    assert code == 0 and "resuming after step 8 of 15" in output
    assert [metrics(folder), weights(folder)] == undisturbed(capsys)


def test_damaged_checkpoints_are_passed_over(stopped, undisturbed, capsys):
    """The one before them is taken."""
    arguments, folder = stopped
    last = folder / "checkpoints" / "00000008"
    shutil.copytree(last, last.with_name(".00000009.123.tmp"))  # never renamed
    largest = max(last.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    code, output, error = run(capsys, train, *arguments)
    assert code == 0 and "resuming after step 6 of 15" in output
    assert "skipping checkpoint" in error and "00000008" in error
    assert [metrics(folder), weights(folder)] == undisturbed(capsys)
    assert Checkpoints(folder / "checkpoints").steps() == [14, 15]


def test_no_checkpoint_that_can_be_read(stopped, capsys):
    """Nothing starts over unasked, however often the command is given."""
    arguments, folder = stopped
    for step in (6, 8):
        note = folder / "checkpoints" / f"{step:08d}" / "checkpoint.json"
        note.write_text("{")
    for _ in range(2):
        code, _, error = run(capsys, train, *arguments)
        assert code == 2 and "--overwrite starts over" in error.splitlines()[-1]
    code, output, _ = run(capsys, train, *arguments, "--overwrite")
    assert code == 0 and "resuming" not in output
    assert metrics(folder)[0]["step"] == 1


def test_a_loss_that_is_not_finite(class_folders, tiny, capsys, tmp_path, monkeypatch):
    make = train_classifier._step

    def diverging(*arguments):
        def step(state, number, batch):
            state, loss = whole(state, number, batch)
            return state, loss * (float("nan") if number >= 6 else 1)

        whole = make(*arguments)
        return step

    folder = tmp_path / "run"
    arguments = [*command(class_folders), f"--workdir={folder}"]
    with monkeypatch.context() as patch:
        patch.setattr(train_classifier, "_step", diverging)
        code, _, error = run(capsys, train, *arguments)
    assert code == 2 and error.count("\n") == 1
    assert "the loss is nan at step 7; the checkpoint of step 6 is the last" in error
    assert Checkpoints(folder / "checkpoints").steps() == [5, 6]
    assert metrics(folder)[-1]["step"] == 6
    assert not (folder / "model").exists()
    # The same command goes on from there.
    code, output, _ = run(capsys, train, *arguments)
    assert code == 0 and "resuming after step 6" in output


def test_a_learning_rate_that_is_far_too_high(class_folders, tiny, capsys, tmp_path):
    """Nothing is patched here: the numbers overflow by themselves."""
    arguments = [*command(class_folders), f"--workdir={tmp_path / 'run'}"]
    rate = "--config.train.learning_rate=1e38"
    code, _, error = run(capsys, train, *arguments, rate)
    assert code == 2 and error.count("\n") == 1
    assert "not finite at step" in error or "the loss is nan at step" in error
    assert "a lower config.train.learning_rate" in error


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    """The loss of the step that spoils them is still finite."""
    plan = Plan(
        epochs=1,
        steps_per_epoch=4,
        batch_size=1,
        log_every=1,
        checkpoint_every=1,
        batches=lambda epoch, start: (
            TrainingBatch(None, None, None, ()) for _ in range(start, 4)
        ),
        step=lambda state, number, batch: (state / (2 - number), jnp.ones(1)),
        evaluate=None,
        rate=lambda step: 1.0,
    )
    directory = RunDirectory(tmp_path, {})
    loop = Loop(plan, jnp.ones(1), lambda state: state[None], directory)
    with pytest.raises(UserError, match="a weight is not finite at step 3; the check"):
        loop.run()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [1, 2]
