"""When to save the state of a run: about once a minute, on all processes alike."""

import time

from jdissect.processes import ALONE, Processes

SECONDS = 60.0


class Minute:
    """A clock that the processes of a run share.

    Theirs differ, so that of the first decides. It is asked at steps that all know
    beforehand: at most twice as many steps pass until the next look as have passed
    since the minute began, so few minutes are more than twice as long.

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

    def is_due(self, step: int) -> bool:
        """Whether to look at the clock at this step; asks nobody."""
        self._steps = step - self._step
        return self._steps >= self._look_after

    def is_over(self) -> bool:
        """Whether the minute is over: an exchange, where a look is due."""
        elapsed = self._processes.gather(time.monotonic() - self._since)[0]
        left = int((SECONDS - elapsed) / max(elapsed / self._steps, 1e-6))
        self._look_after = self._steps + max(1, min(left, self._steps))
        return left <= 0
