"""Launchers with workers of a line or two."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jdissect import launch
from jdissect.runtime import command_line
from jdissect.runtime.launcher import Ending, judge
from tests.hosts import LOST, PATIENCE, WORK, Host, one_line

pytestmark = pytest.mark.usefixtures("own_temporary_files")


def test_flags_are_passed_on(own_temporary_files):
    host = Host(
        ["-c", "import sys; print(sys.argv[1:])", "own"],
        "--process_id=1",
        "--heartbeat_timeout=7",
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
        ([], "no module to start"),
        (["--"], "no module to start"),
        (["-m", "x"], "Unknown command line flag 'm'"),
        (["x"], "unexpected argument 'x' before '--'"),
        (["--log_dir=/dev/null", "--", "-m", "x"], "--log_dir /dev/null"),
    ],
)
def test_bad_command_line(capsys, argv, text):
    assert command_line.entry(launch.main, ["launch", *argv]) == 2
    assert one_line(capsys.readouterr().err, "error: ", text)


def test_jax_is_not_loaded():
    code = "import sys, jdissect.launch; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_judge():
    for code in (0, 1, 2, 130, 143):
        assert judge(code, 0, "") == Ending(code)
    assert judge(3, 0, "") == Ending(3, LOST)
    told = "the JAX distributed service detected fatal errors"
    assert judge(-6, 0, told) == judge(134, 0, told) == Ending(3, LOST)
    here = "this host's worker was killed by signal "
    assert judge(-6, 0, "") == Ending(3, here + "6 (SIGABRT)")
    assert judge(-9, 0, told) == judge(137, 0, "") == Ending(3, here + "9 (SIGKILL)")
    assert judge(-15, 15, "") == Ending(143) and judge(-2, 2, "") == Ending(130)
    assert judge(-15, 0, "") == Ending(3, here + "15 (SIGTERM)")
    assert judge(7, 0, "") == Ending(3, "this host's worker ended with exit code 7")


WAIT = """
import signal, sys, time
def end(number, frame):
    sys.exit({code})
if {code}:
    signal.signal({number}, end)
print("ready", flush=True)
time.sleep(3600)
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
    # Where the tests run in the background SIGINT is ignored, by their children too.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    host = Host(["-c", WAIT.format(code=code, number=int(number))])
    try:
        assert host.process.stdout.readline() == "ready\n"
        host.process.send_signal(number)
        assert host.end() == (expected, "", "")
    finally:
        signal.signal(signal.SIGINT, previous)
        host.kill()


def test_a_killed_launcher_leaves_no_worker():
    host = Host(["-c", WAIT.format(code=0, number=0)])
    try:
        host.process.stdout.readline()
        worker = host.worker()
        host.process.kill()
        host.process.wait()
        end = time.monotonic() + PATIENCE
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
    code = "import os; from jdissect.runtime.command_line import entry; "
    code += "entry(lambda _: {})"
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
