"""Runs a command as a worker, and starts it again after a loss."""

import contextlib
import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdissect.base.errors import ABSENT, LOST, UserError
from jdissect.runtime import native_output

PAUSE = 5.0  # seconds before a worker is started again
_SET_PARENT_DEATH_SIGNAL = 1  # prctl's
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a worker ended.

    Attributes:
      code: exit code to pass on.
      loss: what was lost, in words; '' where the worker ended by itself.
      absent: it found nobody to work with, and has said so.
    """

    code: int
    loss: str = ""
    absent: bool = False


def judge(status: int, forwarded: int, log: str) -> Ending:
    """What a worker's end means.

    Args:
      status: its exit code, -N if signal N ended it.
      forwarded: the last signal that the launcher sent it; 0 for none.
      log: what native code printed.
    """
    if status in (0, 1, 2, 130, 143):
        return Ending(status)
    if status == ABSENT:
        return Ending(2, absent=True)
    if forwarded and status == -forwarded:
        return Ending(128 + forwarded)  # before it had anything to save
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
    """Runs a command, again and again if need be.

    Args:
      command: program and arguments.
      log: file for the native output of the worker.
      restarts: how often to start again after a loss.
    """

    def __init__(self, command: Sequence[str], log: Path, restarts: int):
        self._command, self._log, self._restarts = list(command), log, restarts
        self._worker: subprocess.Popen | None = None
        self._signal = 0  # the last one that came

    def run(self) -> int:
        """Returns the exit code."""
        restarts = 0
        with self._forwarding():
            while True:
                ending = self._once()
                # After a loss the others may take their time to come back.
                again = ending.loss or (ending.absent and restarts)
                if not again or restarts == self._restarts or self._signal:
                    break
                restarts += 1
                what = ending.loss or "the others are not there yet"
                self._say(
                    f"{what}; starting again in {PAUSE:g} s ({restarts} of "
                    f"{self._restarts})"
                )
                self._pause()
                if self._signal:
                    return 128 + self._signal
        if ending.loss:
            self._say(
                f"error: {ending.loss}; start the same command again on all hosts: the "
                f"run goes on from its last save{self._details()}"
            )
        elif ending.code == 1 and self._details():
            self._say(f"error: the worker failed{self._details()}")
        return ending.code

    def _once(self) -> Ending:
        """One worker, from start to end."""
        before = self._log.stat().st_size
        self._worker = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, native_output.LOG: os.fspath(self._log)},
            # Ctrl-C comes here, and is forwarded, rather than to both.
            process_group=0,
            preexec_fn=_die_with_parent(),
        )
        if self._signal:  # it came while there was no worker yet
            self._worker.send_signal(self._signal)
        status = self._worker.wait()
        self._worker = None
        with self._log.open("rb") as file:
            file.seek(before)
            log = file.read().decode(errors="replace")
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

    def _pause(self) -> None:
        end = time.monotonic() + PAUSE
        while time.monotonic() < end and not self._signal:
            time.sleep(0.1)

    def _details(self) -> str:
        return f" (details: {self._log})" if self._log.stat().st_size else ""

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _die_with_parent():
    """For the worker to call before it begins: no launcher leaves one behind."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # found here, as little may be done after a fork

    def call():
        libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    return call


@contextlib.contextmanager
def log_file(folder: str, name: str) -> Iterator[Path]:
    """An empty file; a folder made for it goes with it."""
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
