"""Checkpoints of an unfinished training: whole or not there."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jdissect.base.errors import UserError
from jdissect.checkpoints import orbax_io
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.training.run_directory import Metrics


def state(number):
    return {
        "params": {"layer1.0": jnp.full((2, 3), number, jnp.float32)},
        "optimizer": (jnp.int32(number), [jnp.arange(4)]),
    }


def test_round_trip_and_keeping_two(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(state(0)) is None
    for step in (3, 5, 11):
        checkpoints.save(step, state(step), {"metrics_bytes": 10 * step})
    assert checkpoints.steps() == [5, 11]
    found, notes = checkpoints.restore(state(0))
    assert notes["step"] == 11 and notes["metrics_bytes"] == 110
    assert jax.tree.structure(found) == jax.tree.structure(state(0))
    for one, two in zip(
        jax.tree.leaves(found), jax.tree.leaves(state(11)), strict=True
    ):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def test_a_full_disk_is_noticed_before_orbax_writes(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1), {})

    def fallocate(descriptor, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    monkeypatch.setattr(orbax_io, "_checkpointer", lambda: pytest.fail("it wrote"))
    with pytest.raises(OSError, match="No space left on device: .*state"):
        checkpoints.save(2, state(2), {})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert checkpoints.restore(state(0))[1]["step"] == 1


def test_half_written_and_damaged_ones_are_passed_over(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1), {})
    checkpoints.save(2, state(2), {})
    # Cut off before it was renamed.
    shutil.copytree(tmp_path / "00000002", tmp_path / ".00000003.77.tmp")
    assert checkpoints.restore(state(0))[1]["step"] == 2
    # Other arrays than the hash says.
    shutil.rmtree(tmp_path / "00000002" / "state")
    shutil.copytree(tmp_path / "00000001" / "state", tmp_path / "00000002" / "state")
    found, notes = checkpoints.restore(state(0))
    assert notes["step"] == 1 and found["optimizer"][0] == 1
    assert "00000002" in capsys.readouterr().err
    # The step is written anew when the training comes to it again.
    checkpoints.save(2, state(2), {})
    assert checkpoints.restore(state(0))[0]["optimizer"][0] == 2
    assert not list(tmp_path.glob(".*.tmp"))
    for step in (1, 2):
        (tmp_path / f"{step:08d}" / "checkpoint.json").write_text("{")
    for _ in range(2):  # they stay what they are: nothing begins anew unasked
        with pytest.raises(UserError, match="none of the checkpoints"):
            checkpoints.restore(state(0))


@pytest.mark.filterwarnings("ignore:Sharding info")
def test_a_damaged_save_is_written_again_as_orbax_would_not(tmp_path):
    """Orbax's manager gives neither the save before nor writes this one anew."""
    own = Checkpoints(tmp_path / "own")
    (tmp_path / "manager").mkdir()
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(tmp_path / "manager", options=options)
    for step in (1, 2):
        own.save(step, state(step), {})
        manager.save(step, args=ocp.args.PyTreeSave(state(step)))
    for path in tmp_path.glob("*/*2/*/manifest.ocdbt"):
        path.unlink()
    assert own.restore(state(0))[1]["step"] == 1
    own.save(2, state(2), {})
    assert own.restore(state(0))[1]["step"] == 2
    assert manager.latest_step() == 2
    with pytest.raises(ValueError):
        manager.restore(2, args=ocp.args.PyTreeRestore())
    assert not manager.save(2, args=ocp.args.PyTreeSave(state(2)))


def test_a_state_of_other_shapes_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1), {})
    other = state(0) | {"params": {"layer1.0": jnp.zeros((2, 4))}}
    with pytest.raises(UserError, match="none of the checkpoints"):
        checkpoints.restore(other)


def test_metrics_are_truncated(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.append({"step": 1})
    length = metrics.length
    metrics.append({"step": 2})
    metrics.close()
    again = Metrics(tmp_path / "metrics.jsonl", length)
    again.append({"step": 3})
    again.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 1}\n{"step": 3}\n'


def test_the_length_of_truncated_metrics(tmp_path):
    """A checkpoint notes it, perhaps before anything is written."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntwo\n")
    metrics = Metrics(path, 4)
    assert metrics.length == 4
    metrics.append({})
    assert metrics.length == 7
    metrics.close()
    # Somebody took away lines that the checkpoint knows of.
    again = Metrics(path, 100)
    assert again.length == 7
    again.close()
    assert path.read_text() == "one\n{}\n"
