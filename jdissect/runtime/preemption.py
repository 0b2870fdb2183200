"""SIGTERM, which machines send before they take a job away.

It ends a program as Ctrl-C does, by an exception that goes through everything: no loop
over several networks can take the end of one of them for that of its own work.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGTERM
RESUMES = "the same command resumes from the last save"


class Terminated(BaseException):
    """SIGTERM has come; what could be saved is on disk."""


def end() -> NoReturn:
    """Ends the program from where it is: what `on_sigterm` calls where nothing saves.

    Raises:
      Terminated: always.
    """
    raise Terminated("terminated")


def note(error: BaseException, text: str = RESUMES) -> None:
    """Has an interruption, if it is one, say what becomes of the work; once."""
    interrupted = isinstance(error, (KeyboardInterrupt, Terminated))
    if interrupted and not getattr(error, "__notes__", []):
        error.add_note(text)


def words(error: BaseException, default: str) -> str:
    """What to tell of an interruption in a line; '' where all has been said.

    Args:
      error: perhaps with what `note` has added.
      default: the line's beginning where the error has no text.
    """
    if isinstance(error, Terminated) and not error.args:
        return ""
    return "; ".join([str(error) or default, *getattr(error, "__notes__", [])])


@contextlib.contextmanager
def on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` when SIGTERM comes; in the main thread, else does nothing."""
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
