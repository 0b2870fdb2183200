"""The progress bar of a command on a terminal."""

import contextlib
from typing import TextIO

import tqdm

from jdissect.base.activity import Activity, Stack


class ProgressBar:
    """Shows the activity that says most: a bar if it is counted, else its name.

    Errors of the terminal are ignored: it may be gone while the command works.

    Args:
      stream: the terminal.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._bar: tqdm.tqdm | None = None
        self._shown: Activity | None = None  # by the bar

    def show(self, stack: Stack) -> None:
        """Shows what is under way; clears the line if nothing is."""
        wanted = stack.shown if stack else None
        with contextlib.suppress(OSError, ValueError):
            if wanted is not self._shown:
                if self._bar is not None:
                    self._bar.close()
                self._bar, self._shown = None, wanted
                if wanted is not None:
                    self._bar = self._new(wanted, stack.title())
            elif self._bar is not None:
                self._describe(self._bar, stack)
                self._bar.refresh()

    def advance(self, stack: Stack, activity: Activity, count: int) -> None:
        """Moves the bar if it shows this activity."""
        if self._bar is not None and self._shown is activity:
            self._describe(self._bar, stack)
            with contextlib.suppress(OSError, ValueError):
                self._bar.update(count)

    def _describe(self, bar: tqdm.tqdm, stack: Stack) -> None:
        bar.set_description(stack.title(), refresh=False)
        if self._shown is not None and self._shown.remark:
            bar.set_postfix_str(self._shown.remark, refresh=False)

    def _new(self, activity: Activity, title: str) -> tqdm.tqdm:
        options = {"desc": title, "file": self._stream, "leave": False}
        if not activity.counted:
            return tqdm.tqdm(bar_format="{desc} [{elapsed}]", **options)
        return tqdm.tqdm(
            total=activity.total,
            initial=activity.done,
            unit=activity.unit,
            unit_scale=activity.unit == "B",
            **options,
        )
