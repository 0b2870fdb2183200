"""How one of many processes ends: never in a wait for one that has gone.

JAX's own farewell waits five minutes for every process of the run, and a process that
has failed is one that the others wait for.
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

_FAREWELL = 60.0  # seconds to wait for the others at the end
_FAREWELL_AFTER_ERROR = 10.0  # that all of them should have come to

# Of collectives on CPU and GPU, and of the coordination service.
_GONE = re.compile(
    "Gloo .* failed|ncclRemoteError|ncclSystemError|"
    "(DEADLINE_EXCEEDED|UNAVAILABLE|ABORTED|CANCELLED): "
)
_state = {"joined": False}


def lost(reason: str) -> NoReturn:
    """Ends this process because another one has gone; says so in a line."""
    reason = reason.partition("\n")[0][:200]
    if native_output.supervised():
        # The launcher says it, once: JAX may be about to abort this very moment.
        native_output.note(f"lost: {reason}")
        leave(LOST)
    print(
        f"error: another process of this run was lost ({reason}); start the same "
        "command again on all of them: the run goes on from its last save",
        file=sys.stderr,
    )
    leave(LOST)


def means_loss(error: Exception) -> bool:
    """Whether JAX says by this error that another process is not there."""
    return isinstance(error, (RuntimeError, ValueError)) and bool(
        _GONE.search(str(error))
    )


def leave(code: int) -> NoReturn:
    """Ends at once: the others are not waited for, nor are JAX's farewells."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def join() -> None:
    """Remembers that this process is one of many."""
    _state["joined"] = True


def joined() -> bool:
    """Whether this process is one of many, who may wait for it."""
    return _state["joined"]


def part(code: int) -> None:
    """Takes leave of the others, who come to their ends at about the same time.

    Args:
      code: exit code of this process, which ends with it where the others do not come.
    """
    seconds = _FAREWELL if code == 0 else _FAREWELL_AFTER_ERROR
    # One that has gone is its own launcher's to report; here all is done.
    gone = contextlib.suppress(jax.errors.JaxRuntimeError)
    with timer(seconds, lambda: leave(code)), gone:
        jax.distributed.shutdown()


@contextlib.contextmanager
def timer(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Does something unless the block is through by then."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
