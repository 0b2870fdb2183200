"""Handles SIGTERM, which machines send before they preempt a job.

SIGTERM ends a program as Ctrl-C does, by a BaseException: a loop over several networks
cannot mistake it for the failure of one of them.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGTERM
RESUMES = "the same command resumes from the last save"


class Terminated(BaseException):
    """SIGTERM arrived; everything that could be saved is on disk."""


def terminate() -> NoReturn:
    """Ends the program at once; `on_sigterm` calls it where nothing can be saved.

    Raises:
      Terminated: always.
    """
    raise Terminated("terminated")


def add_hint(error: BaseException, text: str = RESUMES) -> None:
    """Adds to an interruption, once, a note on how the work can continue."""
    interrupted = isinstance(error, (KeyboardInterrupt, Terminated))
    if interrupted and not getattr(error, "__notes__", []):
        error.add_note(text)


def message(error: BaseException, default: str) -> str:
    """Returns an interruption's one-line message; '' if it was already reported.

    Args:
      error: the interruption, perhaps with a text from `add_hint`.
      default: beginning of the line if the error has no text.
    """
    if isinstance(error, Terminated) and not error.args:
        return ""
    return "; ".join([str(error) or default, *getattr(error, "__notes__", [])])


@contextlib.contextmanager
def on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` on SIGTERM; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number, frame):
        del number, frame
        action()

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
