"""Draws random numbers and directions with the same bits on every platform.

NumPy guarantees that PCG64's raw stream and SeedSequence's expansion never change, but
not what `Generator` computes from them, so the few distributions needed are implemented
here. Sines come from a table rounded to 2^-16, which hides differences in the last bit
of C libraries' sines.
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt64

_BLOCK = 1024  # numbers drawn at once; a picture needs a few hundred
_STEPS = 1024  # directions per turn
_ONE = 65536.0  # denominator of the table's entries

Item = TypeVar("Item")


class Draws:
    """An endless stream of draws that depends on its key alone.

    Args:
        key: integers >= 0, such as generator version, seed, split and index.
    """

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._ahead: list[float] = []

    def unit(self) -> float:
        """Returns a uniform number in [0, 1), a multiple of 2^-53."""
        if not self._ahead:
            raw = self._bits.random_raw(_BLOCK)
            self._ahead = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        return self._ahead.pop()

    def uniform(self, low: float, high: float) -> float:
        """Returns a uniform number in [low, high)."""
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """Returns a uniform integer from low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.unit() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """Returns one of the items, each with equal probability."""
        return items[int(self.unit() * len(items))]

    def sign(self) -> float:
        """Returns -1.0 or 1.0."""
        return 1.0 if self.unit() < 0.5 else -1.0

    def permutation(self, count: int) -> list[int]:
        """Returns 0 .. count - 1 in random order (Fisher-Yates)."""
        items = list(range(count))
        for last in range(count - 1, 0, -1):
            other = int(self.unit() * (last + 1))
            items[last], items[other] = items[other], items[last]
        return items

    def raw(self, count: int) -> UInt64[np.ndarray, " count"]:
        """Returns numbers of 64 random bits."""
        return self._bits.random_raw(count)


@functools.cache
def _directions() -> list[tuple[float, float]]:
    turn = 2 * math.pi / _STEPS
    return [
        (
            round(math.cos(step * turn) * _ONE) / _ONE,
            round(math.sin(step * turn) * _ONE) / _ONE,
        )
        for step in range(_STEPS)
    ]


def direction(degrees: float) -> tuple[float, float]:
    """Returns (cosine, sine) of the nearest of 1,024 directions."""
    return _directions()[math.floor(degrees * (_STEPS / 360) + 0.5) % _STEPS]
