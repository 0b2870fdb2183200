"""Logs progress and warnings through Python's `jdissect` logger.

A program that uses the library configures `LOG` as it likes; the commands print every
line to standard error.
"""

import logging
import sys

LOG = logging.getLogger("jdissect")


class _Lines(logging.Handler):
    """Prints each record as one line to the current standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"{prefix}{record.getMessage()}", file=sys.stderr, flush=True)


_LINES = _Lines()


def show() -> None:
    """Prints log records to standard error, as the commands do."""
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    if _LINES not in LOG.handlers:
        LOG.addHandler(_LINES)
