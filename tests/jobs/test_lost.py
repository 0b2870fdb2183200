"""Runs of two hosts, one of which is lost: the other says so, and they go on."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.hosts import AGAIN, LOST, PATIENCE, WORK, hosts, one_line, wait_for

RESUMING = "resuming this run from its last save"

pytestmark = pytest.mark.usefixtures("own_temporary_files")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of the user's cache is read or written."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def work(tiny_classifier):
    """A command without its workdir; it saves after every step."""
    many = ["--config.data.num_images=48", "--config.checkpoint_every=1"]
    return [*WORK, *many, *tiny_classifier]


@pytest.fixture(scope="module")
def whole(work, tmp_path_factory):
    """An uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("launch") / "whole"
    subprocess.run(
        [sys.executable, "-m", *work, f"--workdir={folder}"],
        check=True,
        capture_output=True,
    )
    return folder


def same_arrays(whole, folder):
    expected = np.load(whole / "layer4" / "dissection.npz")
    found = np.load(folder / "layer4" / "dissection.npz")
    assert found.files == expected.files
    for name in expected.files:
        assert found[name].dtype == expected[name].dtype
        assert found[name].tobytes() == expected[name].tobytes(), name
    return True


def saves(folder):
    """The numbers of the checkpoints that are whole."""
    found = (folder / "checkpoints").glob("*")
    return {int(path.name) for path in found if path.name.isdecimal()}


@contextlib.contextmanager
def saving(work, folder, *flags):
    """The hosts of a run that has saved something since they were started."""
    before = max(saves(folder), default=0)
    with hosts([*work, f"--workdir={folder}"], *flags) as both:
        end = time.monotonic() + PATIENCE
        while max(saves(folder), default=0) <= before:
            assert all(host.process.poll() is None for host in both), "it is over"
            assert time.monotonic() < end
            time.sleep(0.02)
        yield both


def finish(work, folder, whole):
    """The same command again, on all hosts."""
    with hosts([*work, f"--workdir={folder}"]) as again:
        ends = [host.end() for host in again]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert RESUMING in ends[0][1]
    assert [error for _, _, error in ends] == ["", ""]
    assert "Gloo" not in ends[0][1] + ends[1][1]
    assert same_arrays(whole, folder)


def lose(work, folder, number, *, stopped=False):
    """A run of two whose worker `number` is killed; what both launchers returned.

    Args:
      work: the command.
      stopped: it stops first, so that the other one waits in an exchange.
    """
    with saving(work, folder, "--heartbeat_timeout=60") as both:
        if stopped:
            both[number].signal(signal.SIGSTOP)
            time.sleep(3)
        both[number].signal(signal.SIGKILL)
        return [host.end() for host in both]


def check_lost(ends, number):
    """Both ended with code 3 and a line that says why."""
    assert [code for code, _, _ in ends] == [3, 3], ends
    killed = "this host's worker was killed by signal 9 (SIGKILL)"
    assert one_line(ends[number][2], killed, AGAIN)
    assert one_line(ends[1 - number][2], LOST, AGAIN)
    # The native output is in a file, and the line says in which.
    log = Path(ends[1 - number][2].partition("(details: ")[2].rpartition(")")[0])
    assert "Gloo" in log.read_text()


def check_told(ends):
    assert [code for code, _, _ in ends] == [143, 143], ends
    assert one_line(ends[0][2], "stopped in the pass") and ends[1][2] == ""


@pytest.mark.slow
def test_lost_and_told(work, tmp_path, whole, own_temporary_files):
    """One run, interrupted in all ways; each time the same command goes on.

    SIGTERM saves on all hosts, whichever is told. Either worker is killed, that of the
    coordinator, too, and one while the other waits for it.
    """
    folder = tmp_path / "run"
    for told in [1], [0, 1]:
        with saving(work, folder) as both:
            for number in told:
                both[number].process.terminate()
            check_told([host.end() for host in both])
        assert not list(own_temporary_files.iterdir())
    for number, stopped in (0, False), (1, True):
        ends = lose(work, folder, number, stopped=stopped)
        check_lost(ends, number)
        assert RESUMING in ends[0][1]
    finish(work, folder, whole)


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("number", [0, 1])
def test_silent(work, tmp_path, number):
    """A machine that stops without a farewell."""
    folder = tmp_path / "run"
    with hosts([*work, f"--workdir={folder}"], "--heartbeat_timeout=10") as both:
        wait_for(folder / "checkpoints" / "00000001", both)
        start = time.monotonic()
        both[number].signal(signal.SIGSTOP)
        code, _, error = both[1 - number].end()
        assert code == 3 and one_line(error, LOST, AGAIN)
        assert 4 < time.monotonic() - start < 25
