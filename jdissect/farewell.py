"""How a process of many ends when it or another has failed: at once.

JAX's own farewell waits for all processes, which one that fails alone must not: the
others would wait for it. They see its connections close instead.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

from jdissect.errors import UserError

LOST = 3  # exit code: another process of the run has gone


def lost(error: jax.errors.JaxRuntimeError) -> NoReturn:
    """Ends this process because another one has gone; says so in a line."""
    reason = str(error).splitlines()[0][:200]
    print(
        f"error: another process of this run was lost ({reason}); start the same "
        "command again on all of them: the run goes on from its last save",
        file=sys.stderr,
    )
    leave(LOST)


def leave(code: int) -> NoReturn:
    """Ends at once: the others are not waited for, nor are JAX's farewells."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def leaving(count: int) -> Iterator[None]:
    """Runs what `count` processes do together; ends this one if it fails alone.

    A UserError passes, as all processes have come to know it.
    """
    if count == 1:
        yield
        return
    try:
        yield
    except UserError:
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        leave(130)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            lost(error)
        traceback.print_exc()
        leave(1)
    except Exception:
        traceback.print_exc()
        leave(1)
