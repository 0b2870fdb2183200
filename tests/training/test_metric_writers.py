"""Metrics for TensorBoard and Weights & Biases, read back after interruptions, too."""

import json
import struct
import sys
import types

import jax.numpy as jnp
import pytest

from jdissect import train
from jdissect.base.errors import UserError
from jdissect.training import metric_writers
from jdissect.training.batches import TrainingBatch
from jdissect.training.loop import Loop, Plan
from jdissect.training.run_directory import RunDirectory
from tests.small_trainings import run


class Interrupted(Exception):
    pass


class Errors:
    """The evaluation of a state."""

    def metrics(self):
        return {"top1_error": 12.5}

    def summary(self):
        return "error"


def training(folder, names, stop=None):
    """Two epochs of four steps; a checkpoint every third; `stop`: a step that fails."""

    def step(state, number, batch):
        if number == stop:
            raise Interrupted
        return state, jnp.full(1, 0.5 + number)

    directory = RunDirectory(folder, {})
    folder.mkdir(exist_ok=True)
    plan = Plan(
        epochs=2,
        steps_per_epoch=4,
        batch_size=1,
        log_every=1,
        checkpoint_every=3,
        batches=lambda epoch, start: (
            TrainingBatch(None, None, None, ()) for _ in range(start, 4)
        ),
        step=step,
        evaluate=lambda state, description: Errors(),
        rate=lambda step: 0.25,
        writers=lambda done, kept: metric_writers.open_writers(
            names, directory.place, "mine", {"train": {"epochs": 2}}, done, kept
        ),
    )
    Loop(plan, jnp.ones(1), lambda x: jnp.asarray(x)[None], directory).run()


def interrupted_training(folder, names):
    """Ends in step 7, whose record and two before are written again."""
    with pytest.raises(Interrupted):
        training(folder, names, stop=7)
    training(folder, names)


def shown(folder):
    """What TensorBoard shows: {name: [(step, value)]}, by the files' definition."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    files = sorted(
        folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_ctime
    )
    for path in files:
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack("<Q", content[place : place + 8])
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            if event.session_log.status == SessionLog.START:
                for events in found.values():
                    events[:] = [pair for pair in events if pair[0] < event.step]
            for value in event.summary.value:
                pair = event.step, value.simple_value
                found.setdefault(value.tag, []).append(pair)
    return found


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX absent")
    whole, folder = tmp_path / "whole", tmp_path / "run"
    training(whole, ["tensorboard"])
    interrupted_training(folder, ["tensorboard"])
    lines = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    for place in (whole, folder):
        found = shown(place / "tensorboard")
        assert found["train/loss"] == [(n, n - 0.5) for n in range(1, 9)]
        assert found["train/lr"] == [(n, 0.25) for n in range(1, 9)]
        assert found["validation/top1_error"] == [(4, 12.5), (8, 12.5)]
        assert len(found["train/images_per_second"]) == 8
        numbers = sum(len(line) - 1 for line in lines)
        assert sum(map(len, found.values())) == numbers
    assert len([*(folder / "tensorboard").iterdir()]) == 2


def test_tensorboard_begun_later(tmp_path):
    """A run that resumes with it shows the records before, too."""
    pytest.importorskip("tensorboardX", reason="tensorboardX absent")
    with pytest.raises(Interrupted):
        training(tmp_path / "run", [], stop=7)
    training(tmp_path / "run", ["tensorboard"])
    found = shown(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 9))


@pytest.fixture
def wandb(monkeypatch):
    """A service that keeps rows by run and step, and whose steps only increase."""
    rows, calls = {}, []

    class Run:
        def __init__(self, rows):
            self.rows = rows
            self.step = max(rows, default=-1) + 1

        def log(self, values, step):
            assert step >= self.step, "wandb ignores this and warns"
            self.step = step
            self.rows.setdefault(step, {}).update(values)

        def finish(self):
            calls.append("finish")

    def init(**options):
        calls.append(options)
        return Run(rows.setdefault(options["id"], {}))

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return types.SimpleNamespace(rows=rows, calls=calls, module=module)


def test_weights_and_biases(tmp_path, wandb):
    folder = tmp_path / "run"
    interrupted_training(folder, ["wandb"])
    ((_, rows),) = wandb.rows.items()  # one run
    assert sorted(rows) == list(range(1, 9))
    assert [rows[step]["train/loss"] for step in sorted(rows)] == [
        n - 0.5 for n in range(1, 9)
    ]
    assert rows[4]["validation/top1_error"] == rows[8]["validation/top1_error"] == 12.5
    first, _, second, finished = wandb.calls
    assert first == second and finished == "finish"
    assert first.pop("id").isalnum()
    assert first == {
        "resume": "allow",
        "name": "mine",
        "config": {"train": {"epochs": 2}},
        "project": "jdissect",
        "dir": str(folder),
    }


def test_a_service_that_refuses(tmp_path, wandb):
    def init(**options):
        raise RuntimeError("api_key not configured\nmore")

    wandb.module.init = init
    with pytest.raises(UserError, match="wandb: api_key not configured$"):
        training(tmp_path / "run", ["wandb"])


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("tensorbord", "", "has 'tensorbord'; it may have tensorboard, wandb"),
        ("wandb", "wandb", "has wandb, which needs wandb: pip install wandb"),
        ("tensorboard", "tensorboardX", "which needs tensorboardX: pip install tens"),
    ],
)
def test_what_is_refused(name, missing, message, tmp_path, capsys, monkeypatch):
    found = metric_writers.importlib.util.find_spec
    monkeypatch.setattr(
        metric_writers.importlib.util,
        "find_spec",
        lambda package: None if package == missing else found(package),
    )
    folder = tmp_path / "run"
    arguments = ["--config=configs/mixup.py", f"--config.train.metrics={name}"]
    code, _, error = run(capsys, train, *arguments, f"--workdir={folder}")
    assert code == 2 and message in error and error.count("\n") == 1
    assert not folder.exists()
