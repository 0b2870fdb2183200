"""What an unfinished dissection has found, agreed on by its processes and kept on disk.

A dissection is a row of *stages*, most of them passes over the images. All that a stage
finds adds up in any order, so a run that was cut off goes on from what is on disk: the
results of the stages that are done, and of the one under way the total over the images
of a *prefix* of the fixed order. That prefix does not say how many devices or processes
counted it, so others may go on.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from jdissect.base.errors import UserError
from jdissect.base.log import LOG
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.runtime.preemption import Terminated, end, on_sigterm
from jdissect.runtime.processes import ALONE, Processes
from jdissect.runtime.save_timer import Minute


class Counter(Protocol):
    """What counts batches for a stage.

    Attributes:
      empty: the result of no images, a pytree of arrays.
    """

    empty: Any

    def add(self, record: Any) -> None:
        """Counts a batch."""
        ...

    def drain(self) -> Any:
        """What this process has counted since the last call: NumPy, int64."""
        ...

    def merge(self, first: Any, second: Any) -> Any:
        """Two results as one, in any order and grouping."""
        ...

    def across(self, processes: Processes, partial: Any) -> Any:
        """The results of all processes as one."""
        ...


class Journal:
    """The stages of a run.

    Args:
      folder: where the run is saved, seen by all processes; None: nowhere.
      processes: of the run.
      every: steps from save to save; 0: about a minute.
      images_a_step: of all processes.
      images: how many there are; a last step may have room for more.

    Attributes:
      notes: {name: JSON dict} of what is saved beside the numbers; the parts of all
        processes are put together at every save.
    """

    def __init__(
        self,
        folder: Path | None = None,
        processes: Processes = ALONE,
        every: int = 0,
        images_a_step: int = 0,
        images: int = sys.maxsize,
    ):
        self.processes, self._images = processes, images
        self._every, self._images_a_step = every, images_a_step
        self._checkpoints = None if folder is None else Checkpoints(folder)
        self._done: dict[str, Any] = {}
        self._stored: dict[str, list[np.ndarray]] = {}
        self._position, self._number, self._open = 0, 0, ""
        self.notes: dict[str, dict] = {"skipped": {}}
        self._terminate = self._begun = False
        # Of the whole run, the same on all processes.
        self._steps, self._saved_at = 0, 0
        # The slowest decides; an error of another one is met here, too.
        agreed = functools.partial(self._meet, None)
        self._minute = Minute(agreed if processes.count > 1 else None)

    def restore(self) -> str:
        """Takes up what is on disk.

        Returns:
          where the run goes on, in words; '' where nothing is saved.

        Raises:
          UserError: what is saved cannot be read.
        """
        found = self._checkpoints and self._checkpoints.restore()
        if not found:
            return ""
        arrays, notes = found
        arrays |= {name: arrays[name].astype(np.int64) for name in notes["wide"]}
        for number, (name, leaves) in enumerate(notes["stages"]):
            self._stored[name] = [arrays[_key(number, leaf)] for leaf in range(leaves)]
        self._open, self._position = notes["open"], notes["position"]
        self._number, self.notes = notes["step"], notes["notes"]
        return f"in the pass '{self._open}', after {self._position} images"

    def stored(self, name: str) -> bool:
        """Whether a stage is done."""
        return name in self._done or (name in self._stored and name != self._open)

    def memo(self, name: str, like: Any, compute: Callable[[], Any]) -> Any:
        """The result of a stage that is not a pass.

        Args:
          name: of the stage.
          like: a pytree of its structure.
          compute: gives it, equal on all processes.
        """
        if self.stored(name):
            self._done[name] = self._take(name, like)
        else:
            with self.processes.agreeing():
                self._done[name] = compute()
        return self._done[name]

    @contextlib.contextmanager
    def stage(self, name: str, counter: Counter) -> Iterator["Stage"]:
        """A pass over the images, from where it was cut off; done, if it is.

        An error of one process in the block is met by all of them.

        Raises:
          UserError: that of the block, on whichever process.
          Terminated: SIGTERM has come, and the state is on disk.
        """
        stage = Stage(self, name, counter)
        try:
            yield stage
        except _Agreed:
            raise
        except UserError as error:
            if not stage.ending:
                self._meet(error)
            raise

    def _take(self, name, like):
        if name in self._done:
            return self._done[name]
        leaves, structure = jax.tree.flatten(like)
        stored = self._stored[name]
        if [a.shape for a in leaves] != [a.shape for a in stored]:
            raise UserError(
                f"what is saved of stage '{name}' has other shapes; without "
                f"{self._checkpoints.folder} the run begins anew"
            )
        return jax.tree.unflatten(structure, stored)

    @contextlib.contextmanager
    def terminable(self) -> Iterator[None]:
        """Makes SIGTERM save and end the run, after the step under way.

        Where no step has begun it ends at once; after the last one, once the block is
        through. Of many processes JAX knows that it has come, and agrees on a step.

        Raises:
          Terminated: in the block, or at its end.
        """
        if self._checkpoints is None or self.processes.count > 1:
            yield
            return

        def terminate():
            self._terminate = True
            if not self._begun:
                end()

        with on_sigterm(terminate):
            yield
        if self._terminate:
            end()

    def _meet(self, error: UserError | None, value: float = 0.0) -> float:
        """An exchange: the largest value, or an error of one for all."""
        texts = [None if error is None else str(error), value]
        met = self.processes.gather(texts)
        for process, (text, _) in enumerate(met):
            if text is not None:
                if error is not None:
                    raise error
                raise _Agreed(f"process {process}: {text}")
        return max(value for _, value in met)

    def _is_due(self) -> bool:
        """Whether to save after this step; the same on all processes."""
        self._steps += 1
        if self._checkpoints is None:
            return False
        if self.processes.count > 1:
            # Hosts are told at different moments; JAX agrees on a step.
            here = multihost_utils.reached_preemption_sync_point(self._steps)
            self._terminate = self._terminate or here
        if self._terminate:
            return True
        if self._every:
            return self._steps - self._saved_at >= self._every
        return self._minute.is_over(self._steps)

    def _save(self, name, total):
        if self.processes.first:
            stages = {**self._done, name: total}
            arrays, names = {}, []
            for number, (stage, tree) in enumerate(stages.items()):
                leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
                names.append([stage, len(leaves)])
                arrays |= {_key(number, i): leaf for i, leaf in enumerate(leaves)}
            wide = [name for name, leaf in arrays.items() if _fits_32(leaf)]
            arrays |= {name: arrays[name].astype(np.int32) for name in wide}
            notes = {
                "stages": names,
                "open": name,
                "position": self._position,
                "wide": wide,
                "notes": self.notes,
            }
            self._checkpoints.save(self._number + 1, arrays, notes)
        self._number += 1
        if self._terminate:
            self._tell(f"stopped in the pass '{name}'; the same command goes on there")
            raise Terminated
        self._saved_at = self._steps
        self._minute.begin(self._steps)

    def note(self, name: str, found: Mapping[str, Any]) -> None:
        """Adds to what is saved beside the numbers."""
        self.notes[name] = {**self.notes[name], **found}

    def _gather_notes(self):
        for part in self.processes.gather(self.notes):
            for name, found in part.items():
                self.note(name, found)

    def _tell(self, text: str) -> None:
        if self.processes.first:
            LOG.info(text)


class Stage:
    """A pass over the images: what is counted, and how far it is.

    Attributes:
      total: the result over the images up to `position`, of all processes; None: none.
      ending: whether all images are counted.
      done: whether `total` is the result over all images.
    """

    def __init__(self, journal: Journal, name: str, counter: Counter):
        self._journal, self._name, self._counter = journal, name, counter
        self.total: Any = None
        self.ending = self.done = journal.stored(name)
        if self.done or name in journal._stored:
            self.total = journal._take(name, counter.empty)
        if self.done:
            journal._done[name] = self.total
            return
        if self.total is None:
            journal._position = 0
        journal._open, journal._begun = name, True

    @property
    def position(self) -> int:
        """Images of the whole order that are counted."""
        return self._journal._position

    def advanced(self) -> bool:
        """Notes a step; whether to save after it, the same on all processes."""
        journal = self._journal
        journal._position += journal._images_a_step
        journal._position = min(journal._position, journal._images)
        return journal._is_due()

    def save(self, partial: Any) -> None:
        """Adds what this process has counted since the last time, and saves.

        Raises:
          Terminated: SIGTERM has come.
        """
        self._absorb(partial)
        self._journal._save(self._name, self.total)

    def finish(self, partial: Any) -> None:
        """Adds what this process has counted to the end; the stage is done."""
        self.ending = True
        self._absorb(partial)
        journal = self._journal
        journal._done[self._name] = self.total
        journal._open, journal._position = "", 0
        self.done = True

    def _absorb(self, partial):
        self._journal._meet(None)
        found = self._counter.across(self._journal.processes, partial)
        if self.total is None:
            self.total = found
        else:
            self.total = self._counter.merge(self.total, found)
        self._journal._gather_notes()


class _Agreed(UserError):
    """An error of another process, known to all."""


def _fits_32(array: np.ndarray) -> bool:
    """Whether counts in 64 bits, of which there are many, would fit into 32."""
    return array.dtype == np.int64 and array.max(initial=0) < 2**31 > -array.min(
        initial=0
    )


def _key(stage: int, leaf: int) -> str:
    return f"{stage}.{leaf}"
