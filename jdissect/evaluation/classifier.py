"""Measures top-1 and top-5 errors of a network on labelled images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdissect.base.progress import counting
from jdissect.data.source import none_read
from jdissect.datasets.labelled import Labelled
from jdissect.evaluation.batches import evaluation_batches
from jdissect.models.preprocess import Preprocessing, normalize
from jdissect.runtime.devices import Devices
from jdissect.runtime.processes import ALONE, Processes

Apply = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of a network's errors.

    Attributes:
      images: number of classified images.
      wrong: {k: images whose class is not among the k highest logits}, k = 1, 5.
      skipped: name and reason of each unreadable image.
    """

    images: int
    wrong: dict[int, int]
    skipped: tuple[tuple[str, str], ...] = ()

    def error(self, k: int) -> float:
        """Returns the top-k error in percent."""
        return 100 * self.wrong[k] / self.images

    def to_json(self) -> dict[str, Any]:
        """Returns the errors in percent, with 95 % intervals."""
        found: dict[str, Any] = {"images": self.images, "skipped": len(self.skipped)}
        for k, wrong in self.wrong.items():
            low, high = wilson_interval(wrong, self.images)
            found[f"top{k}_error"] = self.error(k)
            found[f"top{k}_interval"] = [100 * low, 100 * high]
        return found

    def metrics(self) -> dict[str, float]:
        """Returns the record for `metrics.jsonl`."""
        return {f"top{k}_error": self.error(k) for k in self.wrong}

    def summary(self) -> str:
        """Returns the errors on one line."""
        return "  ".join(f"top-{k} error {self.error(k):.2f} %" for k in self.wrong)

    def table(self) -> str:
        """Returns the errors and intervals as a table."""
        lines = ["       error  95 % interval    wrong"]
        for k, wrong in self.wrong.items():
            low, high = wilson_interval(wrong, self.images)
            lines.append(
                f"top-{k} {self.error(k):6.2f} %  {100 * low:5.2f} .. {100 * high:5.2f}"
                f"  {wrong} of {self.images}"
            )
        return "\n".join(lines)


def wilson_interval(wrong: int, images: int) -> tuple[float, float]:
    """Returns the 95 % Wilson interval (1927) of a share.

    Args:
      wrong: number of wrong images.
      images: number of images, at least 1.
    """
    import scipy.stats  # takes a second to import

    interval = scipy.stats.binomtest(wrong, images).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def ranks(
    logits: Float[Array, "batch class"], labels: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """Returns how many classes rank above the right one; ties go to the lower number.

    A NaN logit ranks above all others.
    """
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)
    lower = jnp.arange(logits.shape[1]) < labels[:, None]
    before = (logits > right) | ((logits == right) & lower) | jnp.isnan(logits)
    return jnp.where(jnp.isnan(right[:, 0]), logits.shape[1], before.sum(axis=1))


class Evaluator:
    """Runs a network over labelled images; compiled once.

    Args:
      apply: `apply(params, images, ())` returns logits of normalized images first.
      preprocessing: preprocessing of the images.
      devices: this process's devices.
      batch_size: images per device and step.
      image_size: side of the center crop; see `batches.evaluation_batches`.
      dtype: type of the network's computation.
      workers: number of decoding processes; 0 = threads.
      strict: whether to stop at an unreadable image.
      processes: processes that share the images; all of them call `run`.
    """

    def __init__(
        self,
        apply: Apply,
        preprocessing: Preprocessing,
        devices: Devices,
        *,
        batch_size: int,
        image_size: int,
        dtype: str = "float32",
        workers: int = 0,
        strict: bool = False,
        processes: Processes = ALONE,
    ):
        def update(wrong, batch, params):
            images = normalize(batch["pixels"], preprocessing, dtype)
            logits, _ = apply(params, images, ())
            return wrong + count_wrong(logits, batch["labels"], batch["valid"])

        self._step, self._devices = devices.spmd(update), devices
        self._processes = processes
        self._options: dict[str, Any] = {
            "workers": workers,
            "strict": strict,
            "processes": processes,
        }
        self._batch_size, self._image_size = batch_size * len(devices), image_size

    def run(self, params: Any, images: Labelled, description: str) -> Counts:
        """Classifies all images.

        Args:
          params: parameters of the network, on the host or one device.
          images: images, of which at least one can be read.
          description: name of the progress bar.

        Raises:
          UserError: no image can be read; or see `batches.evaluation_batches`, on any
            process.
        """
        processes = self._processes
        with processes.agreeing():
            counts, skipped = self._count(params, images, description)
        count, first, fifth = map(int, processes.total(counts))
        skipped = [tuple(one) for part in processes.gather(skipped) for one in part]
        if not count:
            raise none_read(skipped)
        return Counts(count, {1: first, 5: fifth}, tuple(skipped))

    def _count(self, params, images, description):
        """Returns this process's int64 counts (images, wrong), and skipped images."""
        params = self._devices.replicate(params)
        state = self._devices.states(np.zeros(2, np.int32))
        count = 0
        skipped: list[tuple[str, str]] = []
        batches = evaluation_batches(
            images, self._batch_size, self._image_size, **self._options
        )
        parts = self._processes.count
        with counting(
            description,
            len(images.names),
            before="compiling",
            silent=not self._processes.first,
        ) as task:
            for batch in batches:
                share = {
                    "pixels": batch.pixels,
                    "labels": batch.labels,
                    "valid": batch.valid,
                }
                state = self._step(state, self._devices.scatter(share), params)
                count += int(batch.valid.sum())
                skipped += batch.skipped
                read = int(batch.valid.sum()) + len(batch.skipped)
                task.advance(read * parts)
        wrong = np.asarray(state).sum(axis=0)
        return np.array([count, *wrong], np.int64), skipped


def count_wrong(
    logits: Float[Array, "batch class"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
) -> Int[Array, "2"]:
    """Counts images whose class is not the first, and not among the first five."""
    found = ranks(logits, labels)
    return jnp.stack([(valid & (found >= k)).sum(dtype=jnp.int32) for k in (1, 5)])
