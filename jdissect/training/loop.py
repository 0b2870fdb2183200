"""Runs the training loop: epochs of steps, checkpoints, evaluations, metrics.

Every epoch has the same number of steps, so the number of finished steps is the
position in the data; together with state and seed it determines all that follows. A
checkpoint holds the state, that number, and the length of `metrics.jsonl`: an
interrupted training run resumes from it as if never interrupted, to the same bits on
the same devices. (On a GPU this also needs
XLA_FLAGS=--xla_gpu_deterministic_ops=true: its gradients are sums in any order.)

In a multi-process run, each process runs this loop on its shard of every batch. All
make the same decisions; the first writes, and all read the checkpoints.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from jdissect.base.errors import UserError
from jdissect.base.log import LOG
from jdissect.base.progress import counting
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.runtime import consistency
from jdissect.runtime.preemption import Terminated, on_sigterm
from jdissect.runtime.processes import ALONE, Processes
from jdissect.runtime.save_timer import SaveTimer
from jdissect.training.metric_writers import Record, Writer
from jdissect.training.remote_errors import Alarm
from jdissect.training.run_directory import Metrics, RunDirectory
from jdissect.training.step import first_copy

_IN_FLIGHT = 2  # pending steps, so that devices never wait for the host


class Batch(Protocol):
    """Input of a step, for example `batches.TrainingBatch`.

    Attributes:
      replaced: name and reason of unreadable images.
    """

    replaced: tuple[tuple[str, str], ...]


class Evaluation(Protocol):
    """Result of an evaluation, for example `evaluation.classifier.Counts`."""

    def metrics(self) -> dict[str, float]:
        """Returns the record for `metrics.jsonl`."""
        ...

    def summary(self) -> str:
        """Returns the result on one line."""
        ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """The work of a training run, as functions.

    Attributes:
      epochs, steps_per_epoch, batch_size: amount of work.
      log_every: steps between log records.
      checkpoint_every: steps between checkpoints; 0: about a minute.
      batches: `(epoch, start) -> iterator` over the epoch's batches from `start` on, or
        over this process's shards of them.
      step: `(state, step number, batch) -> (state, loss)`, one loss per device, of
        which the first counts.
      evaluate: evaluates a state; None if there are no images to evaluate on.
      rate: maps a step, from 0, to its learning rate.
      writers: opens what gets the metrics beside `metrics.jsonl`, given the number of
        finished steps and a function that reads the records until then.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    batches: Callable[[int, int], Generator[Batch, None, None]]
    step: Callable[[Any, int, Batch], tuple[Any, jax.Array]]
    evaluate: Callable[[Any, str], Evaluation] | None
    rate: Callable[[int], Any]
    writers: Callable[[int, Callable[[], Sequence[Record]]], list[Writer]] = (
        lambda done, kept: []
    )


class Loop:
    """Runs a plan in a run directory, resuming from the last checkpoint if any.

    Args:
      plan: the work to do.
      state: initial state for one device.
      place: replicates a state to all devices.
      directory: the run directory.
      processes: processes that share every batch; all of them run this.
      tell: prints a line; on the first process only.

    Raises:
      UserError: no checkpoint can be read.
    """

    def __init__(
        self,
        plan: Plan,
        state: Any,
        place: Callable[[Any], Any],
        directory: RunDirectory,
        processes: Processes = ALONE,
        tell: Callable[[str], None] = print,
    ):
        self._plan, self._processes, self._tell = plan, processes, tell
        self._checkpoints: Checkpoints = directory.checkpoints
        with processes.agreeing():
            restored = self._checkpoints.restore(state)
        self.done, length = 0, 0
        if restored is not None:
            state, notes = restored
            self.done, length = notes["step"], notes["metrics_bytes"]
        consistency.check_alike(processes, {}, {"the last checkpoint": self.done})
        if self.done and processes.first:
            tell(f"resuming after step {self.done} of {self._total}")
        self.state = place(state)
        with processes.agreeing():
            self._metrics = None
            if processes.first:
                self._metrics = Metrics(directory.metrics, length)
                self._metrics.writers = plan.writers(self.done, self._metrics.records)
        self._pending: collections.deque = collections.deque()
        self._alarm = Alarm(processes)
        # The first process's clock decides.
        agreed = lambda seconds: processes.gather(seconds)[0]  # noqa: E731
        self._save_timer = SaveTimer(agreed if processes.count > 1 else None, self.done)
        self._logged_at, self._logged = time.monotonic(), self.done
        self._loss = float("nan")
        self._replaced: set[str] = set()
        self._stop = False  # SIGTERM arrived
        self._saved = False  # the current state is on disk

    @property
    def _total(self) -> int:
        return self._plan.epochs * self._plan.steps_per_epoch

    def run(self) -> Evaluation | None:
        """Trains to the end; returns the last evaluation.

        Raises:
          Terminated: SIGTERM arrived.
          UserError: a loss or a weight is not finite, or reading images fails.
        """
        found, resumed = None, True
        with self._on_sigterm(), self._metrics or contextlib.nullcontext():
            while True:
                epoch, start = divmod(self.done, self._plan.steps_per_epoch)
                if self.done and not start:
                    if not resumed:
                        self._save()
                    found = self._evaluate(epoch)
                if self.done == self._total:
                    if self._stop:
                        raise Terminated
                    return found
                self._train(epoch, start)
                resumed = False

    def _train(self, epoch: int, start: int) -> None:
        """Trains the rest of an epoch."""
        plan, count = self._plan, self._plan.steps_per_epoch
        self._saved = False
        self._logged_at, self._logged = time.monotonic(), self.done
        batches = self._alarm.batches(plan.batches(epoch, start), count - start)
        with (
            contextlib.closing(batches),
            counting(
                f"epoch {epoch + 1}/{plan.epochs}",
                count * plan.batch_size,
                start=start * plan.batch_size,
                before="" if np.isfinite(self._loss) else "compiling",
                silent=not self._processes.first,
            ) as task,
        ):
            for batch in batches:
                self._tell_replaced(batch)
                self.state, loss = plan.step(self.state, self.done, batch)
                self.done += 1
                self._pending.append((self.done, loss, self._alarm.ring()))
                self._settle(_IN_FLIGHT)
                task.remark(f"loss={self._loss:.3f}")
                task.advance(plan.batch_size)
                if self._is_to_stop():
                    with task.stage("saving"):
                        self._save()
                    raise Terminated
                if self.done % count and self._is_due():
                    with task.stage("saving"):
                        self._save()
        self._settle(0)

    def _settle(self, allowed: int) -> None:
        """Waits until at most `allowed` losses are pending; logs the others."""
        while len(self._pending) > allowed:
            step, loss, errors = self._pending.popleft()
            self._loss = float(first_copy(loss))
            self._alarm.hear(errors())
            if not np.isfinite(self._loss):
                self._diverged(step, f"the loss is {self._loss}")
            if self._metrics and step % self._plan.log_every == 0:
                with self._alarm.watching():
                    self._log(step)

    def _log(self, step: int) -> None:
        assert self._metrics is not None
        now = time.monotonic()
        images = (step - self._logged) * self._plan.batch_size
        self._metrics.append(
            {
                "step": step,
                "epoch": (step - 1) // self._plan.steps_per_epoch + 1,
                "loss": self._loss,
                "lr": float(str(np.float32(self._plan.rate(step - 1)))),  # 0.1, short
                "images_per_second": round(
                    images / max(now - self._logged_at, 1e-9), 2
                ),
            }
        )
        self._logged, self._logged_at = step, now

    def _evaluate(self, epoch: int) -> Evaluation | None:
        """Evaluates at an epoch's end, when the state is on disk."""
        line = f"epoch {epoch}/{self._plan.epochs}  step {self.done}"
        if not np.isnan(self._loss):
            line += f"  loss {self._loss:.4f}"
        found = None
        if self._plan.evaluate is not None:
            self._saved = True
            if self._stop:
                raise Terminated
            found = self._plan.evaluate(self.state, "evaluation")
            record = {"step": self.done, "epoch": epoch, **found.metrics()}
            line += f"  {found.summary()}"
            with self._processes.agreeing():
                if self._metrics:
                    self._metrics.append(record)
        if self._processes.first:
            self._tell(line)
        return found

    def _is_due(self) -> bool:
        if self._plan.checkpoint_every:
            return self.done % self._plan.checkpoint_every == 0
        return self._save_timer.is_due(self.done)

    def _save(self) -> None:
        self._settle(0)
        with self._processes.agreeing():
            self._alarm.check()
            if self._metrics:
                state = first_copy(self.state)
                finite = (np.isfinite(array).all() for array in jax.tree.leaves(state))
                if not all(finite):
                    self._diverged(self.done, "a weight is not finite")
                self._checkpoints.save(
                    self.done, state, {"metrics_bytes": self._metrics.length}
                )
        self._save_timer.restart(self.done)

    def _diverged(self, step: int, what: str) -> None:
        steps = self._checkpoints.steps()
        last = (
            f"the checkpoint of step {steps[-1]} is the last good one"
            if steps
            else "there is no checkpoint yet"
        )
        raise UserError(
            f"{what} at step {step}; {last}. Try a lower config.train.learning_rate"
        )

    def _tell_replaced(self, batch: Batch) -> None:
        """Logs each replaced image once."""
        for name, reason in batch.replaced:
            if name not in self._replaced:
                self._replaced.add(name)
                LOG.info("image %s cannot be read and is replaced: %s", name, reason)

    def _on_sigterm(self):
        """Requests the stop; in a multi-process run JAX agrees on the step."""
        if self._processes.count > 1:
            return contextlib.nullcontext()
        return on_sigterm(self._terminate)

    def _is_to_stop(self) -> bool:
        """Returns whether to stop after this step; the same on all processes."""
        if self._processes.count > 1:
            return multihost_utils.reached_preemption_sync_point(self.done)
        return self._stop

    def _terminate(self) -> None:
        """Ends training after the current step, or now if that loses nothing."""
        self._stop = True
        if self._saved:
            raise Terminated
