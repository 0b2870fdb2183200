"""Decides when to save a run: about once per minute, in step on all processes."""

import time
from collections.abc import Callable

SECONDS = 60.0


class SaveTimer:
    """A one-minute timer, the same for all processes of a run.

    Their clocks differ, so they agree on a time. That takes an exchange, so it happens
    at few steps, which all processes know in advance: after half as many steps as the
    last minute had, then at the predicted end of the minute, but after twice as many
    steps at the latest.

    Args:
      agreed: maps this process's seconds to seconds common to all processes; None for
        a single process.
      step: step at which the first minute begins.
    """

    def __init__(self, agreed: Callable[[float], float] | None = None, step: int = 0):
        self._agreed = agreed
        self._steps = 1
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts a minute at a step, which is the same on all processes."""
        self._since, self._step = time.monotonic(), step
        self._look_after = max(1, self._steps // 2)

    def is_due(self, step: int) -> bool:
        """Returns whether the minute is over at a step; all processes agree."""
        self._steps = step - self._step
        if self._agreed is None:
            return time.monotonic() - self._since >= SECONDS
        if self._steps < self._look_after:
            return False
        elapsed = self._agreed(time.monotonic() - self._since)
        if elapsed >= SECONDS:
            return True
        left = int((SECONDS - elapsed) / max(elapsed / self._steps, 1e-6))
        self._look_after = self._steps + max(1, min(left, self._steps))
        return False
