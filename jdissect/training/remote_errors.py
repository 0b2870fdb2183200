"""Spreads one process's error to all without making them wait for each other.

Every training step needs all processes, so one that cannot read its images must not
stop: the others would wait for it. It continues with its last batch and reports the
error alongside each step; a few steps later, when losses are awaited, all stop
together. The steps computed since are never saved.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from jdissect.base.errors import UserError, of_system
from jdissect.runtime.processes import ALONE, Processes

Batch = TypeVar("Batch")


class Alarm:
    """Holds this process's error, and learns whether another process has one.

    Args:
      processes: the processes of the run; a single one raises errors immediately.
    """

    def __init__(self, processes: Processes = ALONE):
        self._processes = processes
        self._error: UserError | None = None

    def batches(
        self, batches: Generator[Batch, None, None], count: int
    ) -> Generator[Batch, None, None]:
        """Yields `count` batches; after an error, repeats the last one.

        Raises:
          UserError: there is no first batch, on any process.
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
        """Keeps an error of the block, to be reported later."""
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
        """Reports alongside a step; returns a function that counts erring processes."""
        return self._processes.count_later(self._error is not None)

    def hear(self, errors: int) -> None:
        """Stops all processes if any has an error.

        Raises:
          UserError: the error of the first process that has one.
        """
        if errors:
            self._processes.agree(self._error)

    def check(self) -> None:
        """Raises this process's error, if there is one."""
        if self._error is not None:
            raise self._error
