"""Launchers: what they say and return, whatever becomes of their workers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jdissect import cli, launch, processes
from jdissect.errors import UserError
from jdissect.launch import Ending, judge
from tests.hosts import WORK, Host, hosts, wait_for

LOST = "another process of this run was lost"
AGAIN = "; start the same command again on all hosts"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("launch") / "whole"
    subprocess.run(
        [sys.executable, "-m", *WORK, f"--workdir={folder}"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path, monkeypatch):
    """Logs are made where a test can count them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def one_line(error, *parts):
    """Whether that is all on standard error."""
    assert error.endswith("\n") and error.count("\n") == 1, error
    for part in parts:
        assert part in error, error
    return True


def same_arrays(whole, folder):
    expected = np.load(whole / "layer4" / "dissection.npz")
    found = np.load(folder / "layer4" / "dissection.npz")
    assert found.files == expected.files
    for name in expected.files:
        assert found[name].dtype == expected[name].dtype
        assert found[name].tobytes() == expected[name].tobytes(), name
    return True


def finish(folder, whole):
    """The same command again, on all hosts."""
    with hosts([*WORK, f"--workdir={folder}"]) as again:
        ends = [host.end() for host in again]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "going on where this run was last saved" in ends[0][1]
    assert [error for _, _, error in ends] == ["", ""]
    assert "Gloo" not in ends[0][1] + ends[1][1]
    assert same_arrays(whole, folder)


def lose(folder, number, *, stopped=False, saved=1):
    """A run of two whose worker `number` is killed; what both launchers returned.

    Args:
      stopped: it stops first, so that the other one waits in an exchange.
      saved: checkpoints by then.
    """
    with hosts([*WORK, f"--workdir={folder}"], "--heartbeat_timeout=10") as both:
        wait_for(folder / "checkpoints" / f"{saved:08d}", both)
        if stopped:
            both[number].signal(signal.SIGSTOP)
            time.sleep(3)
        both[number].signal(signal.SIGKILL)
        start = time.monotonic()
        ends = [host.end(timeout=60) for host in both]
        assert time.monotonic() - start < 25
    return ends


def check_lost(ends, number):
    """Both ended with code 3 and a line that says why."""
    assert [code for code, _, _ in ends] == [3, 3], ends
    killed = "this host's worker was killed by signal 9 (SIGKILL)"
    assert one_line(ends[number][2], killed, AGAIN)
    assert one_line(ends[1 - number][2], LOST, AGAIN)
    # The native output is in a file, and the line says in which.
    log = Path(ends[1 - number][2].partition("(details: ")[2].rpartition(")")[0])
    assert "Gloo" in log.read_text()


def test_killed_while_the_other_waits(tmp_path, whole):
    folder = tmp_path / "run"
    check_lost(lose(folder, 1, stopped=True), 1)
    finish(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "saved"), [(0, 1), (0, 3), (1, 2)])
def test_killed(tmp_path, whole, number, saved):
    """The coordinator, too."""
    folder = tmp_path / "run"
    check_lost(lose(folder, number, saved=saved), number)
    finish(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_silent(tmp_path, number):
    """A machine that stops without a farewell."""
    folder = tmp_path / "run"
    with hosts([*WORK, f"--workdir={folder}"], "--heartbeat_timeout=10") as both:
        wait_for(folder / "checkpoints" / "00000001", both)
        start = time.monotonic()
        both[number].signal(signal.SIGSTOP)
        code, _, error = both[1 - number].end(timeout=60)
        assert code == 3 and one_line(error, LOST, AGAIN)
        assert 4 < time.monotonic() - start < 25


@pytest.mark.slow
@pytest.mark.parametrize("told", [[0, 1], [1]])
def test_sigterm(tmp_path, whole, own_temporary_files, told):
    """Saved on all hosts, whichever is told; the same command goes on."""
    folder = tmp_path / "run"
    with hosts([*WORK, f"--workdir={folder}"]) as both:
        wait_for(folder / "checkpoints" / "00000001", both)
        for number in told:
            both[number].process.terminate()
        ends = [host.end() for host in both]
    assert [code for code, _, _ in ends] == [143, 143], ends
    assert one_line(ends[0][2], "stopped in the pass") and ends[1][2] == ""
    assert not list(own_temporary_files.iterdir())
    finish(folder, whole)


@pytest.mark.slow
def test_a_run_heals_itself(tmp_path, whole):
    folder = tmp_path / "run"
    with hosts([*WORK, f"--workdir={folder}"], "--restarts=1") as both:
        wait_for(folder / "checkpoints" / "00000001", both)
        both[0].signal(signal.SIGKILL)
        ends = [host.end() for host in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    for _, _, error in ends:
        assert one_line(error, "starting again in 5 s (1 of 1)")
    assert "going on where this run was last saved" in ends[0][1]
    assert same_arrays(whole, folder)


PEER = """
import os, sys
from jdissect import cli
from jdissect.errors import UserError

def main(argv):
    from jdissect import processes
    address, _, index = (argument.partition("=")[2] for argument in argv[1:4])
    here = processes.start(address, 2, int(index), start_timeout=60)
    here.gather("begin")
    if here.index:
        {act}
    here.gather("end")
    return 0

sys.exit(cli.entry(main))
"""


@pytest.mark.parametrize(
    ("act", "code", "text"),
    [
        ("raise KeyError('a bug')", 1, "KeyError: 'a bug'"),
        pytest.param(
            "raise OSError(28, 'No space left')",
            2,
            "error: No space left\n",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise UserError('not agreed on')",
            2,
            "error: not agreed on\n",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise KeyboardInterrupt", 130, "interrupted\n", marks=pytest.mark.slow
        ),
        pytest.param("pass", 0, "", marks=pytest.mark.slow),
    ],
)
def test_nobody_waits_for_an_error_of_one(act, code, text):
    with hosts(["-c", PEER.format(act=act)]) as both:
        first, second = (host.end(timeout=60) for host in both)
    assert second[0] == code and text in second[2]
    assert ("Traceback" in second[2]) == (code == 1)
    if code == 0:
        assert first == second == (0, "", "")
    else:
        assert first[0] == 3 and one_line(first[2], LOST)


def test_started_alone(own_temporary_files, tmp_path):
    """Both the first without others, and another without the first."""
    command = [*WORK, f"--workdir={tmp_path / 'run'}"]
    flags = ("--start_timeout=3",)
    with (
        hosts(command, *flags, indices=[0]) as first,
        hosts(command, *flags, indices=[1]) as second,
    ):
        for host in (*first, *second):
            code, output, error = host.end(timeout=60)
            assert code == 2 and output == ""
            assert one_line(error, "error: no connection to 2 processes", "within 3 s")
    assert not (tmp_path / "run").exists()
    assert not list(own_temporary_files.iterdir())


def test_a_port_that_is_taken():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* cannot be used"):
            processes.start(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("127.0.0.1:1", 2, -1), "go together"),
        (("127.0.0.1:1", 0, 0), "go together"),
        (("", 2, 0), "go together"),
        (("127.0.0.1:1", 2, 2), "--process_id is 2; .* from 0 to 1"),
        (("127.0.0.1", 2, 0), "it must be HOST:PORT"),
        (("127.0.0.1:", 2, 0), "it must be HOST:PORT"),
        ((":8000", 2, 0), "it must be HOST:PORT"),
        (("127.0.0.1:70000", 2, 0), "it must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit(arguments, text):
    with pytest.raises(UserError, match=text):
        processes.start(*arguments)


def test_flags_are_passed_on(own_temporary_files):
    host = Host(
        ["-c", "import sys; print(sys.argv[1:])", "own"],
        "--process_id=1",
        "--heartbeat_timeout=7",
        "--restarts=2",
    )
    expected = "['own', '--process_id=1', '--heartbeat_timeout=7']\n"
    assert host.end() == (0, expected, "")
    assert not list(own_temporary_files.iterdir())


def test_a_refusal_of_the_worker_passes_through():
    host = Host(WORK, "--process_id=1", "--num_processes=2")
    code, output, error = host.end()
    assert (code, output) == (2, "") and one_line(error, "go together")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "nothing to start"),
        (["--restarts=1", "--"], "nothing to start"),
        (["--restarts=-1", "--", "-m", "x"], "--restarts is '-1'"),
        (["-m", "x"], "Unknown command line flag 'm'"),
        (["x"], "unexpected argument 'x' before '--'"),
        (["--log_dir=/dev/null", "--", "-m", "x"], "--log_dir /dev/null"),
    ],
)
def test_bad_command_line(capsys, argv, text):
    assert cli.entry(launch.main, ["launch", *argv]) == 2
    assert one_line(capsys.readouterr().err, "error: ", text)


def test_jax_is_not_loaded():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, jdissect.launch; print('jax' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_judge():
    for code in (0, 1, 2, 130, 143):
        assert judge(code, 0, "") == Ending(code)
    assert judge(3, 0, "") == Ending(3, LOST)
    assert judge(75, 0, "") == Ending(2, absent=True)
    told = "the JAX distributed service detected fatal errors"
    assert judge(-6, 0, told) == judge(134, 0, told) == Ending(3, LOST)
    here = "this host's worker was killed by signal "
    assert judge(-6, 0, "") == Ending(3, here + "6 (SIGABRT)")
    assert judge(-9, 0, told) == judge(137, 0, "") == Ending(3, here + "9 (SIGKILL)")
    assert judge(-15, 15, "") == Ending(143) and judge(-2, 2, "") == Ending(130)
    assert judge(-15, 0, "") == Ending(3, here + "15 (SIGTERM)")
    assert judge(7, 0, "") == Ending(3, "this host's worker ended with exit code 7")


# Ends with the codes of a list, one at a time.
CODES = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
first, *rest = path.read_text().split()
path.write_text(" ".join(rest))
sys.exit(int(first))
"""


@pytest.mark.parametrize(
    ("codes", "restarts", "code", "lines"),
    [
        ("3 3 0 9", 2, 0, 2),
        ("3 3 3 0", 2, 3, 3),
        ("3 75 0", 2, 0, 2),  # the others took their time to come back
        ("75 0", 2, 2, 0),  # they were never there
        ("3 2 0", 2, 2, 1),
        ("3 0", 0, 3, 1),
    ],
)
def test_restarts(tmp_path, monkeypatch, capsys, codes, restarts, code, lines):
    monkeypatch.setattr(launch, "PAUSE", 0.01)
    path = tmp_path / "codes"
    path.write_text(codes)
    argv = ["launch", f"--restarts={restarts}", "--", "-c", CODES, str(path)]
    assert cli.entry(launch.main, argv) == code
    error = capsys.readouterr().err.splitlines()
    assert len(error) == lines, error
    again = lines - (code == 3)
    assert all("starting again in" in line for line in error[:again])
    assert ("error: " in "".join(error)) == (code == 3)


WAIT = """
import signal, sys, time
def end(number, frame):
    sys.exit({code})
if {code}:
    signal.signal({number}, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code", "expected"),
    [
        (signal.SIGTERM, 143, 143),
        (signal.SIGINT, 130, 130),
        (signal.SIGTERM, 0, 143),
    ],
)
def test_signals_are_forwarded(number, code, expected):
    host = Host(["-c", WAIT.format(code=code, number=int(number))])
    try:
        assert host.process.stdout.readline() == "ready\n"
        host.process.send_signal(number)
        assert host.end(timeout=30) == (expected, "", "")
    finally:
        host.kill()


def test_a_killed_launcher_leaves_no_worker():
    host = Host(["-c", WAIT.format(code=0, number=0)])
    try:
        host.process.stdout.readline()
        worker = host.worker()
        host.process.kill()
        host.process.wait()
        end = time.monotonic() + 10
        while _alive(worker):
            assert time.monotonic() < end, "the worker lives on"
            time.sleep(0.02)
    finally:
        host.kill()


def _alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_log_dir(tmp_path):
    """Kept where something went wrong, with what C++ printed."""
    folder = tmp_path / "logs"
    code = "from jdissect import cli; import os; cli.entry(lambda _: {})"
    crash = "(os.write(2, b'C++ says'), os.abort())"
    host = Host(["-c", code.format(crash)], f"--log_dir={folder}", "--process_id=4")
    log = folder / "process-4.log"
    found, output, error = host.end()
    assert (found, output) == (3, "") and one_line(error, "(SIGABRT)", str(log))
    assert log.read_text() == "C++ says"
    host = Host(["-c", code.format("1 / 0")], f"--log_dir={folder}", "--process_id=4")
    found, _, error = host.end()
    assert found == 1 and error.endswith("ZeroDivisionError: division by zero\n")
    assert not list(folder.iterdir())
