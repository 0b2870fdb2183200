"""An error of one process, which all of them hear of without waiting for each other.

Every step of a training takes all processes, so one that cannot read its images must
not stop: the others would wait for it. It goes on with the last of its batches and
says so beside each step; a few steps later, where losses are awaited, all stop alike.
What they computed since is never saved.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from jdissect.base.errors import UserError, of_system
from jdissect.runtime.processes import ALONE, Processes

Batch = TypeVar("Batch")


class Alarm:
    """What has gone wrong on this process, and whether anything has on another.

    Args:
      processes: of the run; alone, errors are raised where they happen.
    """

    def __init__(self, processes: Processes = ALONE):
        self._processes = processes
        self._error: UserError | None = None

    def batches(self, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
        """`count` batches; where they end early by an error, the last again and again.

        Raises:
          UserError: there is no first one, on whichever process.
        """
        with contextlib.closing(batches):
            with self._processes.agreeing():
                self.check()
                batch = next(batches)
            for _ in range(count):
                yield batch
                with self.watching():
                    batch = next(batches, batch)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps an error of the block, to be rung."""
        try:
            yield
        except UserError as error:
            if self._processes.count == 1:
                raise
            self._error = self._error or error
        except OSError as error:
            if self._processes.count == 1:
                raise
            self._error = self._error or of_system(error)

    def ring(self) -> Callable[[], int]:
        """Tells the others, beside a step; gives how many processes have an error."""
        return self._processes.count_later(self._error is not None)

    def hear(self, errors: int) -> None:
        """Stops all processes if any has an error.

        Raises:
          UserError: that of the first which has one.
        """
        if errors:
            self._processes.agree(self._error)

    def check(self) -> None:
        """Raises this process's error, if there is one."""
        if self._error is not None:
            raise self._error
