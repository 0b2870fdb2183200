"""The progress bar of a notebook: one line of HTML that is replaced, and goes away."""

import sys
from collections.abc import Callable
from html import escape
from typing import Any

from jdissect.base import activity as activities
from jdissect.base.activity import Activity, Stack

_EVERY = 0.2  # seconds between updates


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")  # of a kernel it is always there
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """Shows the activity that says most, in the output of the cell.

    Args:
      clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._next = clock, 0.0
        self._handle: Any = None
        self._shown: Activity | None = None

    def show(self, stack: Stack) -> None:
        """Shows what is under way; clears the line if nothing is."""
        if not stack:
            if self._shown is not None:
                self._write("")
            self._shown = None
            return
        now = self._clock()
        if stack.shown is self._shown and now < self._next:
            return
        self._shown, self._next = stack.shown, now + _EVERY
        self._write(_html(stack, now))

    def advance(self, stack: Stack, activity: Activity, count: int) -> None:
        """Moves the bar."""
        del activity, count
        self.show(stack)

    def _write(self, text: str) -> None:
        from IPython import display  # this is its kernel

        content = {"text/html": text, "text/plain": ""}
        if self._handle is not None:
            self._handle.update(content, raw=True)
        elif text:
            self._handle = display.display(content, raw=True, display_id=True)


def _html(stack: Stack, now: float) -> str:
    bar, counted = "", stack.counted
    if counted is not None and counted.total:
        share = min(1.0, counted.done / counted.total)
        bar = f"<progress value='{share:.4f}' style='width:16em'></progress> "
    return f"{bar}{escape(activities.line(stack, now))}"
