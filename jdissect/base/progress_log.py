"""Progress where there is no terminal: lines of a log, and a record in a file."""

import datetime
import os
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from jdissect.base import activity as activities
from jdissect.base.activity import Stack

SILENCE = "JDISSECT_PROGRESS"  # environment variable; 0: no lines
FIRST, EVERY = 10.0, 30.0  # seconds before the first line, and between lines
EVERY_REMOTE = 300.0  # seconds between writes of a record in an object store


class Lines:
    """Prints a line now and then, unless the environment variable `SILENCE` is 0.

    Args:
      stream: where to; None: nowhere.
      now: seconds of the clock whose times `tick` is given.
    """

    def __init__(self, stream: TextIO | None, now: float):
        self._stream = None if os.environ.get(SILENCE) == "0" else stream
        self._start, self._next = now, now + FIRST

    def tick(self, stack: Stack, now: float) -> None:
        """Prints a line if one is due."""
        if self._stream is None or not stack or now < self._next:
            return
        self._next = now + EVERY
        elapsed = activities.interval(now - self._start)
        try:
            text = f"[{elapsed}] {activities.line(stack, now)}"
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):  # a pipe that nobody reads any more
            self._stream = None


class Record:
    """Has a function write now and then how far the command is, as JSON.

    Args:
      write: is given `stage`; `images` done and `of` how many, `images_per_second` and
        `seconds_left` of that stage, None where not known; `updated`, UTC.
      every: seconds between writes.
      now: seconds of the clock whose times `due` is given.
    """

    def __init__(
        self, write: Callable[[Mapping[str, Any]], None], every: float, now: float
    ):
        self.write, self._every, self._next = write, every, now + FIRST

    def due(self, stack: Stack, now: float) -> dict[str, Any] | None:
        """What to write now; None if nothing is due."""
        if not stack or now < self._next:
            return None
        self._next = now + self._every
        activity = stack.shown
        rate, left = activity.rate(), activity.seconds_left()
        utc = datetime.datetime.now(datetime.UTC)
        return {
            "stage": activity.name,
            "images": activity.done if activity.counted else None,
            "of": activity.total,
            "images_per_second": None if rate is None else round(rate, 2),
            "seconds_left": None if left is None else round(left),
            "updated": utc.isoformat(timespec="seconds"),
        }
