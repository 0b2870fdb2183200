"""Where Python's and native code's output goes."""

import os
import pty
import subprocess
import sys

SPEAK = """
import os, sys
from jdissect.runtime import native_output
print("before")
native_output.{call}()
print("out")
print("err", file=sys.stderr)
os.write(1, b"native out\\n")
os.write(2, b"native err\\n")
print(sys.stderr.isatty(), native_output.LOG in os.environ)
"""


def speak(call, after="", **variables):
    return subprocess.run(
        [sys.executable, "-c", SPEAK.format(call=call) + after],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_native_output_goes_to_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("old\n")
    done = speak("to_log", JDISSECT_NATIVE_LOG=str(log))
    assert done.stdout == "before\nout\nFalse False\n"
    assert done.stderr == "err\n"
    assert log.read_text() == "old\nnative out\nnative err\n"


def test_without_a_log_nothing_moves():
    done = speak("to_log")
    assert done.stdout == "before\nout\nnative out\nFalse False\n"
    assert done.stderr == "err\nnative err\n"


def test_mute_stdout(tmp_path):
    done = speak("mute_stdout")
    assert done.stdout == "before\nout\nFalse False\n"
    assert done.stderr == "err\nnative err\n"


def test_tracebacks_stay(tmp_path):
    log = tmp_path / "log"
    done = speak("to_log", "1 / 0", JDISSECT_NATIVE_LOG=str(log))
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_faulthandler_stays_where_it_was(tmp_path):
    log = tmp_path / "log"
    done = speak(
        "to_log",
        "os.abort()",
        JDISSECT_NATIVE_LOG=str(log),
        PYTHONFAULTHANDLER="1",
    )
    assert "Fatal Python error: Aborted" in done.stderr
    assert "Fatal" not in log.read_text()


def test_a_terminal_stays_one(tmp_path):
    """So that there are progress bars."""
    ours, theirs = pty.openpty()
    log = tmp_path / "log"
    try:
        subprocess.run(
            [sys.executable, "-c", SPEAK.format(call="to_log")],
            env={**os.environ, "JDISSECT_NATIVE_LOG": str(log)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            check=True,
        )
        text = os.read(ours, 1000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert text.split() == ["before", "out", "err", "True", "False"]
