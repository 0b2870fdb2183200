"""Saves an unfinished dissection's results, agreed on by its processes, and resumes it.

A dissection is a sequence of *stages*, most of them passes over the images. All results
of a stage are sums in any order, so an interrupted run resumes from what is on disk:
the results of the finished stages, and for the current one the total over the images of
a *prefix* of the fixed order. That prefix does not depend on the number of devices or
processes, so the run can resume with others.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from jdissect.base.errors import UserError
from jdissect.base.log import LOG
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.runtime.preemption import Terminated, on_sigterm, terminate
from jdissect.runtime.processes import ALONE, Processes
from jdissect.runtime.save_timer import SaveTimer

_CONDENSED = ", condensed"  # after the name of a stage


class Counter(Protocol):
    """Counts batches for a stage.

    Attributes:
      empty: the result of no images, a pytree of arrays.
    """

    @property
    def empty(self) -> Any: ...

    def add(self, record: Any) -> None:
        """Counts a batch."""
        ...

    def drain(self) -> Any:
        """Returns this process's counts since the last call: NumPy, int64."""
        ...

    def merge(self, first: Any, second: Any) -> Any:
        """Merges two results, in any order and grouping."""
        ...

    def across(self, processes: Processes, partial: Any) -> Any:
        """Merges the results of all processes."""
        ...


class Journal:
    """The stages of a run.

    Args:
      folder: folder for saves, visible to all processes; None saves nothing.
      processes: the processes of the run.
      every: number of steps between saves; 0: about a minute.
      images_a_step: images per step, of all processes.
      images: number of images; the last step may have room for more.

    Attributes:
      notes: {name: JSON dict} saved beside the numbers; every save merges the notes of
        all processes.
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
        # Counts for the whole run, the same on all processes.
        self._steps, self._saved_at = 0, 0
        # The slowest process decides; errors of others are raised here, too.
        agreed = functools.partial(self._meet, None)
        self._save_timer = SaveTimer(agreed if processes.count > 1 else None)

    def restore(self) -> str:
        """Loads the saved state.

        Returns:
          where the run resumes, as text; '' if nothing is saved.

        Raises:
          UserError: the saved state cannot be read.
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
        """Returns whether a stage is finished."""
        return name in self._done or (name in self._stored and name != self._open)

    def memo(self, name: str, like: Any, compute: Callable[[], Any]) -> Any:
        """Returns the result of a stage that is not a pass, computing it if needed.

        Args:
          name: name of the stage.
          like: a pytree with the result's structure.
          compute: computes the result, equal on all processes.
        """
        if self.stored(name):
            self._done[name] = self._take(name, like)
        else:
            with self.processes.agreeing():
                self._done[name] = compute()
        return self._done[name]

    def condense(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        """Keeps arrays in place of a finished stage's result, which may be large.

        The stage must not be asked for again; see `condensed`.
        """
        # With a row more, as Orbax saves no empty arrays.
        self._done[name + _CONDENSED] = [
            np.concatenate([array, np.zeros_like(array, shape=(1, *array.shape[1:]))])
            for array in arrays
        ]
        del self._done[name]
        self._stored.pop(name, None)

    def condensed(self, name: str) -> list[np.ndarray] | None:
        """Returns what `condense` was given for a stage; None if it did not happen."""
        name += _CONDENSED
        if name not in self._done and name in self._stored:
            self._done[name] = self._stored[name]
        kept = self._done.get(name)
        return None if kept is None else [array[:-1] for array in kept]

    @contextlib.contextmanager
    def stage(self, name: str, counter: Counter) -> Iterator["Stage"]:
        """Runs a pass over the images, resumed if interrupted, skipped if finished.

        An error of one process in the block is raised on all of them.

        Raises:
          UserError: the error of the block, on any process.
          Terminated: SIGTERM arrived, and the state is on disk.
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
            assert self._checkpoints is not None  # it was restored
            raise UserError(
                f"the saved state of stage '{name}' has other shapes; delete "
                f"{self._checkpoints.folder} to start the run over"
            )
        return jax.tree.unflatten(structure, stored)

    @contextlib.contextmanager
    def terminable(self) -> Iterator[None]:
        """Makes SIGTERM save and end the run after the current step.

        Before the first step it ends the run at once, after the last one at the end of
        the block. In a multi-process run, JAX agrees on the step.

        Raises:
          Terminated: in the block, or at its end.
        """
        if self._checkpoints is None or self.processes.count > 1:
            yield
            return

        def on_signal():
            self._terminate = True
            if not self._begun:
                terminate()

        with on_sigterm(on_signal):
            yield
        if self._terminate:
            terminate()

    def _meet(self, error: UserError | None, value: float = 0.0) -> float:
        """Returns the largest value of all processes, or raises one's error on all."""
        texts = [None if error is None else str(error), value]
        met = self.processes.gather(texts)
        for process, (text, _) in enumerate(met):
            if text is not None:
                if error is not None:
                    raise error
                raise _Agreed(f"process {process}: {text}")
        return max(value for _, value in met)

    def _is_due(self) -> bool:
        """Returns whether to save after this step; the same on all processes."""
        self._steps += 1
        if self._checkpoints is None:
            return False
        if self.processes.count > 1:
            # Hosts get SIGTERM at different moments; JAX agrees on a step.
            here = multihost_utils.reached_preemption_sync_point(self._steps)
            self._terminate = self._terminate or here
        if self._terminate:
            return True
        if self._every:
            return self._steps - self._saved_at >= self._every
        return self._save_timer.is_due(self._steps)

    def _save(self, name, total):
        if self.processes.first:
            stages = {**self._done, name: total}
            arrays: dict[str, np.ndarray] = {}
            names = []
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
            assert self._checkpoints is not None  # else no save is due
            self._checkpoints.save(self._number + 1, arrays, notes)
        self._number += 1
        if self._terminate:
            self._tell(f"stopped in the pass '{name}'; the same command resumes there")
            raise Terminated
        self._saved_at = self._steps
        self._save_timer.restart(self._steps)

    def note(self, name: str, found: Mapping[str, Any]) -> None:
        """Adds notes to be saved beside the numbers."""
        self.notes[name] = {**self.notes[name], **found}

    def _gather_notes(self):
        for part in self.processes.gather(self.notes):
            for name, found in part.items():
                self.note(name, found)

    def _tell(self, text: str) -> None:
        if self.processes.first:
            LOG.info(text)


class Stage:
    """A pass over the images: its counts and its position.

    Attributes:
      total: the result over the images up to `position`, of all processes, or None.
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
        """Number of images counted, in the order of the whole run."""
        return self._journal._position

    def advanced(self) -> bool:
        """Records a step; returns whether to save, the same on all processes."""
        journal = self._journal
        journal._position += journal._images_a_step
        journal._position = min(journal._position, journal._images)
        return journal._is_due()

    def save(self, partial: Any) -> None:
        """Adds this process's counts since the last save, and saves.

        Raises:
          Terminated: SIGTERM arrived.
        """
        self._absorb(partial)
        self._journal._save(self._name, self.total)

    def finish(self, partial: Any) -> None:
        """Adds this process's remaining counts and finishes the stage."""
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
    """An error of another process, raised on all."""


def _fits_32(array: np.ndarray) -> bool:
    """Returns whether 64-bit counts, if there are many, would fit into 32 bits."""
    return array.dtype == np.int64 and array.max(initial=0) < 2**31 > -array.min(
        initial=0
    )


def _key(stage: int, leaf: int) -> str:
    return f"{stage}.{leaf}"
