"""Ends a process of a multi-process run without waiting for a lost one.

JAX's own shutdown waits five minutes for all processes of the run, and never for less
if one of them has failed.
"""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from jdissect.base.errors import LOST
from jdissect.runtime import native_output

_WAIT_AT_END = 60.0  # seconds to wait for the other processes at the end
_WAIT_AFTER_ERROR = 10.0  # after an error that all of them should have raised

# Errors of collectives on CPU and GPU, and of the coordination service.
_GONE = re.compile(
    "Gloo .* failed|ncclRemoteError|ncclSystemError|"
    "(DEADLINE_EXCEEDED|UNAVAILABLE|ABORTED|CANCELLED): "
)
_run = {"joined": False}


def lost(reason: str) -> NoReturn:
    """Ends this process because another one is lost; prints one line."""
    reason = reason.partition("\n")[0][:200]
    if native_output.supervised():
        # The launcher prints it, once: JAX may be about to abort at this moment.
        native_output.note(f"lost: {reason}")
        leave(LOST)
    print(
        f"error: another process of this run was lost ({reason}); run the same "
        "command again on all of them: it resumes from the last save",
        file=sys.stderr,
    )
    leave(LOST)


def means_loss(error: Exception) -> bool:
    """Returns whether a JAX error means that another process is lost."""
    return isinstance(error, (RuntimeError, ValueError)) and bool(
        _GONE.search(str(error))
    )


def leave(code: int) -> NoReturn:
    """Exits at once, without waiting for other processes or JAX's shutdown."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def join() -> None:
    """Records that this process is one of many."""
    _run["joined"] = True


def joined() -> bool:
    """Returns whether this process is one of many, which may wait for it."""
    return _run["joined"]


def end_with_others(code: int) -> None:
    """Waits for the other processes, which should end at about the same time.

    Args:
      code: exit code with which this process ends if the others do not come.
    """
    seconds = _WAIT_AT_END if code == 0 else _WAIT_AFTER_ERROR
    # A lost process is reported by its own launcher; this one has finished.
    gone = contextlib.suppress(jax.errors.JaxRuntimeError)
    with timer(seconds, lambda: leave(code)), gone:
        jax.distributed.shutdown()


@contextlib.contextmanager
def timer(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Runs `action` unless the block finishes within `seconds`."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
