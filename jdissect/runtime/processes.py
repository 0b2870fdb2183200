"""Exchanges values between the processes of a run.

In a multi-process run (one process per host of a TPU pod, say) all processes execute
one program on shards of the images. Steps never communicate; exchanges at the end of a
pass and at checkpoints go through the functions here. Every process must reach the
exchanges in the same order. Integer sums are exact, so results do not depend on the
number of processes.

A process that fails for a reason the user can fix sends its message to the next
exchange, where all processes raise it, so none waits for it.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdissect.base.errors import UserError, of_system
from jdissect.runtime.shutdown import lost

_CHUNK = 1 << 21  # 64-bit integers per all-reduce
_STATUS = re.compile(r"[A-Z_]+: ")  # prefix of XLA errors
_LIMBS = 4  # of 16 bits each, in 32: sums over 65,536 processes are exact


@dataclasses.dataclass(eq=False)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
      index: index of this process; process 0 writes files and prints.
      count: number of processes.
      sent: bytes that this process has sent.
    """

    index: int = 0
    count: int = 1
    sent: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Returns the JSON values of all processes, by index."""
        if self.count == 1:
            return [value]
        return [json.loads(data) for data in self._bytes(json.dumps(value).encode())]

    def fold(self, merge: Callable[[Any, Any], Any], tree: Any) -> Any:
        """Merges the trees of all processes; meant for small arrays.

        Args:
          merge: (tree, tree) -> tree.
          tree: NumPy arrays, of equal shapes on all processes.
        """
        if self.count == 1:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        leaves = [np.asarray(leaf, order="C") for leaf in leaves]
        merged = None
        for data in self._bytes(b"".join(leaf.tobytes() for leaf in leaves)):
            there, place = [], 0
            for leaf in leaves:
                array = np.frombuffer(data, leaf.dtype, leaf.size, place)
                there.append(array.reshape(leaf.shape).copy())
                place += leaf.nbytes
            other = jax.tree.unflatten(structure, there)
            merged = other if merged is None else merge(merged, other)
        return merged

    def total(self, tree: Any) -> Any:
        """Returns the exact sum of all processes' trees of int64 arrays.

        Devices add in 32 bits. Numbers are sent as they are where no sum can overflow,
        as for most counts, and otherwise as four limbs of 16 bits.
        """
        if self.count == 1:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        flat = np.concatenate([np.ravel(leaf).astype(np.int64) for leaf in leaves])
        ends = self.gather([int(flat.min(initial=0)), int(flat.max(initial=0))])
        lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
        narrow = lowest >= 0 and highest * self.count < 2**32
        summed = np.empty_like(flat)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            summed[start : start + _CHUNK] = self._summed(part, 1 if narrow else _LIMBS)
        places = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = zip(np.split(summed, places), leaves, strict=True)
        return jax.tree.unflatten(
            structure, [part.reshape(leaf.shape) for part, leaf in parts]
        )

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Runs a block on all processes; if it fails on one, it fails on all.

        Raises:
          UserError: the error of the block, here or on another process.
        """
        error = None
        try:
            yield
        except UserError as raised:
            error = raised
        except OSError as raised:
            if self.count == 1:
                raise
            error = of_system(raised)
        self.agree(error)

    def agree(self, error: UserError | None) -> None:
        """Raises on all processes if one of them has an error.

        Raises:
          UserError: `error`, or that of the first process that has one.
        """
        if self.count > 1:
            texts = self.gather(None if error is None else str(error))
            for process, text in enumerate(texts):
                if text is not None and error is None:
                    raise UserError(f"process {process}: {text}")
        if error is not None:
            raise error

    def count_later(self, here: bool) -> Callable[[], int]:
        """Counts the processes on which `here` is true, without waiting.

        Returns:
          a function that waits for the count and returns it.
        """
        if self.count == 1:
            return lambda: int(here)
        sent = self._send(np.array([here], np.uint32), _sum)
        return lambda: int(self._receive(sent)[0])

    def _bytes(self, data: bytes) -> list[bytes]:
        """Returns the bytes of every process."""
        lengths = self._everyone(np.array([len(data)], np.uint32))[:, 0]
        # Each shape is compiled, so use few: powers of two, or multiples of 1 MiB.
        longest = max(1, int(lengths.max()))
        size = min(1 << (longest - 1).bit_length(), -(-longest // 2**20) * 2**20)
        mine = np.zeros(max(64, size), np.uint8)
        mine[: len(data)] = np.frombuffer(data, np.uint8)
        rows = self._everyone(mine)
        return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]

    def _everyone(self, array: np.ndarray) -> np.ndarray:
        return self._exchange(array, _rows)

    def _summed(self, part: np.ndarray, count: int) -> np.ndarray:
        """Returns the sum of all processes' parts, each number in `count` limbs."""
        # Each shape is compiled, so use few.
        size = max(64, 1 << max(0, part.size - 1).bit_length())
        limbs = np.zeros((count, size), np.uint32)
        mask = 0xFFFFFFFF if count == 1 else 0xFFFF
        for limb in range(count):
            limbs[limb, : part.size] = (part >> 16 * limb) & mask
        limbs = self._exchange(limbs, _sum)
        limbs = limbs[:, : part.size].astype(np.int64)
        return sum(limbs[limb] << 16 * limb for limb in range(count))

    def _exchange(self, array: np.ndarray, function: Callable) -> np.ndarray:
        """Applies `function` to all processes' stacked arrays, on one device each."""
        return self._receive(self._send(array, function))

    def _send(self, array: np.ndarray, function: Callable) -> jax.Array:
        self.sent += array.nbytes
        by_process: dict[int, Any] = {}
        for device in jax.devices():
            by_process.setdefault(device.process_index, device)
        devices = [by_process[process] for process in range(self.count)]
        mesh = Mesh(np.asarray(devices), ("process",))
        try:
            stacked = jax.make_array_from_process_local_data(
                NamedSharding(mesh, PartitionSpec("process")), array[None]
            )
            everywhere = NamedSharding(mesh, PartitionSpec())
            return jax.jit(function, out_shardings=everywhere)(stacked)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            # Errors before the program is queued are ValueErrors with a status.
            if isinstance(error, ValueError) and not _STATUS.match(str(error)):
                raise
            lost(str(error))

    def _receive(self, sent: jax.Array) -> np.ndarray:
        try:
            return np.asarray(sent.addressable_data(0))
        except jax.errors.JaxRuntimeError as error:
            lost(str(error))


ALONE = Processes()


def _rows(stacked):
    return stacked


def _sum(stacked):
    return stacked.sum(axis=0, dtype=np.uint32)
