"""SIGTERM, which machines send before they take a job away."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM has come, and the state is on disk."""


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
