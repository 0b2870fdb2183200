"""When to save the state of a run: about once a minute, on all processes alike."""

import time
from collections.abc import Callable

SECONDS = 60.0


class Minute:
    """A clock that the processes of a run share.

    Theirs differ, so they agree on a time. That takes an exchange, so it is done at few
    steps, which all know beforehand: after half as many as the last minute had, then
    when the minute should be over, but after twice as many at the latest.

    Args:
      agreed: seconds of this process's clock -> seconds that all go by; None: alone.
      step: at which the first minute begins.
    """

    def __init__(self, agreed: Callable[[float], float] | None = None, step: int = 0):
        self._agreed = agreed
        self._steps = 1
        self.begin(step)

    def begin(self, step: int) -> None:
        """Begins a minute at a step, the same on all processes."""
        self._since, self._step = time.monotonic(), step
        self._look_after = max(1, self._steps // 2)

    def is_over(self, step: int) -> bool:
        """Whether the minute is over at a step; the same on all processes."""
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
