"""When to save the state of a run: about once a minute, on all processes alike."""

import time

from jdissect.processes import ALONE, Processes

SECONDS = 60.0


class Minute:
    """A clock that the processes of a run share.

    Theirs differ, so that of the first decides. Asking it takes an exchange, so that is
    done at few steps, which all know beforehand: after half as many as the last minute
    had, then when the minute should be over, but after twice as many at the latest.

    Args:
      processes: of the run.
      step: at which the first minute begins.
    """

    def __init__(self, processes: Processes = ALONE, step: int = 0):
        self._processes = processes
        self._steps = 1
        self.begin(step)

    def begin(self, step: int) -> None:
        """Begins a minute at a step, the same on all processes."""
        self._since, self._step = time.monotonic(), step
        self._look_after = max(1, self._steps // 2)

    def is_over(self, step: int) -> bool:
        """Whether the minute is over at a step; the same on all processes."""
        self._steps = step - self._step
        if self._processes.count > 1 and self._steps < self._look_after:
            return False
        elapsed = self._processes.gather(time.monotonic() - self._since)[0]
        if elapsed >= SECONDS:
            return True
        left = int((SECONDS - elapsed) / max(elapsed / self._steps, 1e-6))
        self._look_after = self._steps + max(1, min(left, self._steps))
        return False
