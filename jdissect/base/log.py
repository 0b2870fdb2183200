"""What the library says to a person, beside results and errors.

`LOG` is the logger `jdissect` of Python's logging. A program that uses the library
decides what becomes of it; a command shows every line on standard error.
"""

import logging
import sys

LOG = logging.getLogger("jdissect")


class _Lines(logging.Handler):
    """A line on standard error, whichever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"{prefix}{record.getMessage()}", file=sys.stderr, flush=True)


_LINES = _Lines()


def show() -> None:
    """Shows what is said on standard error, as commands do."""
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    if _LINES not in LOG.handlers:
        LOG.addHandler(_LINES)
