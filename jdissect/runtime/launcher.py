"""Runs a command as a worker, and says in a line how it was lost."""

import contextlib
import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdissect.base.errors import LOST, UserError
from jdissect.runtime import native_output

_SET_PARENT_DEATH_SIGNAL = 1  # prctl's
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a worker ended.

    Attributes:
      code: exit code to pass on.
      loss: description of what was lost; '' if the worker ended by itself.
    """

    code: int
    loss: str = ""


def judge(status: int, forwarded: int, log: str) -> Ending:
    """Interprets how a worker ended.

    Args:
      status: its exit code, or -N if signal N ended it.
      forwarded: the last signal that the launcher sent to it; 0 for none.
      log: output of native code.
    """
    if status in (0, 1, 2, 130, 143):
        return Ending(status)
    if forwarded and status == -forwarded:
        return Ending(128 + forwarded)  # it had nothing to save yet
    number = -status if status < 0 else status - 128
    told = "distributed service" in log or "coordination service" in log
    if status == LOST or (number == signal.SIGABRT and told):
        return Ending(LOST, "another process of this run was lost")
    if number > 0:
        return Ending(LOST, f"this host's worker was killed by signal {_name(number)}")
    return Ending(LOST, f"this host's worker ended with exit code {status}")


def _name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


class Launcher:
    """Runs a command.

    Args:
      command: program and arguments.
      log: an empty file for the native output of the worker.
    """

    def __init__(self, command: Sequence[str], log: Path):
        self._command, self._log = list(command), log
        self._worker: subprocess.Popen | None = None
        self._signal = 0  # the last one received

    def run(self) -> int:
        """Runs the command to its end; returns the exit code."""
        with self._forwarding():
            ending = self._ended()
        if ending.loss:
            _say(
                f"error: {ending.loss}; run the same command again on all hosts: it "
                f"resumes from the last save{self._details()}"
            )
        elif ending.code == 1 and self._details():
            _say(f"error: the worker failed{self._details()}")
        return ending.code

    def _ended(self) -> Ending:
        """Runs the worker to its end; returns how it ended."""
        self._worker = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, native_output.LOG: os.fspath(self._log)},
            # Ctrl-C reaches only the launcher, which forwards it.
            process_group=0,
            preexec_fn=_die_with_parent(),
        )
        if self._signal:  # it came before the worker started
            self._worker.send_signal(self._signal)
        status = self._worker.wait()
        self._worker = None
        log = self._log.read_text(encoding="utf-8", errors="replace")
        return judge(status, self._signal, log)

    @contextlib.contextmanager
    def _forwarding(self) -> Iterator[None]:
        def forward(number, frame):
            del frame
            self._signal = number
            if self._worker is not None:
                self._worker.send_signal(number)

        previous = {}
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, forward)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _details(self) -> str:
        return f" (details: {self._log})" if self._log.stat().st_size else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _die_with_parent():
    """Returns a function the worker calls first, so that it dies with its launcher."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded here: little is safe after a fork

    def call():
        libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    return call


@contextlib.contextmanager
def log_file(folder: str, name: str) -> Iterator[Path]:
    """Yields an empty log file; a folder created for it is removed with it."""
    try:
        home = Path(folder or tempfile.mkdtemp(prefix="jdissect-")).absolute()
        home.mkdir(parents=True, exist_ok=True)
        path = home / name
        path.write_bytes(b"")
    except OSError as error:
        raise UserError(f"--log_dir {folder}: {error.strerror}") from error
    try:
        yield path
    finally:
        if path.exists() and not path.stat().st_size:
            path.unlink()
        if not folder and not path.exists():
            home.rmdir()
