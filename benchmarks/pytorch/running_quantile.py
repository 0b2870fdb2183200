"""A sampled running quantile, as the PyTorch originals estimate thresholds.

In the manner of netdissect's `runningstats.py`: every unit has a pile of buffers. New
values go to the lowest; a full buffer is sorted and every second value, from a random
start, moves to the next, where it counts double. The heaviest values matter most: the
top buffer holds `resolution` of them, each one below two thirds as many. A quantile is
read off them all by interpolation.
"""

import math

import torch

BUFFER = 128  # values of a buffer, at least
_SHRINK = 0.67  # size of a buffer in terms of the next


class RunningQuantile:
    """Quantiles of every unit's stream.

    Args:
      units: how many streams.
      resolution: values of the top buffer; netdissect's is 3,072.
      seed: seed of the random starts.
      device: where the buffers are.
    """

    def __init__(
        self, units: int, resolution: int = 3072, seed: int = 0, device: str = "cpu"
    ):
        self._units, self._device = units, device
        self._resolution = resolution
        self._random = torch.Generator().manual_seed(seed)
        self._levels: list[torch.Tensor] = []
        self._used: list[int] = []
        self._low = torch.full((units,), torch.inf, device=device)
        self._high = torch.full((units,), -torch.inf, device=device)

    def add(self, values: torch.Tensor) -> None:
        """Adds [value, unit]."""
        self._low = torch.minimum(self._low, values.amin(0))
        self._high = torch.maximum(self._high, values.amax(0))
        self._push(0, values.t())

    def quantile(self, share: float) -> torch.Tensor:
        """The value that `share` of each unit's stream lies below, interpolated."""
        held = [
            (level[:, :used], 2.0**number)
            for number, (level, used) in enumerate(
                zip(self._levels, self._used, strict=True)
            )
        ]
        values = torch.cat([level for level, _ in held], 1)
        weights = torch.cat([torch.full_like(level, w) for level, w in held], 1)
        ends = torch.stack([self._low, self._high], 1)
        values = torch.cat([values, ends], 1)
        weights = torch.cat([weights, torch.zeros_like(ends)], 1)
        values, order = values.sort(1)
        weights = weights.gather(1, order)
        rank = weights.cumsum(1) - weights / 2  # of each value's middle
        wanted = share * weights.sum(1, keepdim=True)
        place = torch.searchsorted(rank, wanted).clamp(1, rank.shape[1] - 1)
        below, above = rank.gather(1, place - 1), rank.gather(1, place)
        part = (wanted - below) / (above - below).clamp(min=1e-12)
        low, high = values.gather(1, place - 1), values.gather(1, place)
        return (low + (high - low) * part.clamp(0, 1))[:, 0]

    def _capacity(self, number: int) -> int:
        """Of a buffer: less than before once there are more above it."""
        above = len(self._levels) - 1 - number
        size = math.ceil(self._resolution * _SHRINK**above / 8) * 8
        return max(BUFFER, size)

    def _push(self, number: int, values: torch.Tensor) -> None:
        if number == len(self._levels):
            size = max(BUFFER, math.ceil(self._resolution / 8) * 8)
            buffer = torch.empty(self._units, size, device=self._device)
            self._levels.append(buffer)
            self._used.append(0)
        start, buffer = 0, self._levels[number]
        while start < values.shape[1]:
            used, size = self._used[number], self._capacity(number)
            some = max(0, min(size - used, values.shape[1] - start))
            buffer[:, used : used + some] = values[:, start : start + some]
            start, used = start + some, used + some
            self._used[number] = used
            if used >= size:
                first = int(torch.randint(2, (), generator=self._random))
                half = buffer[:, :used].sort(1).values[:, first::2]
                self._used[number] = 0
                self._push(number + 1, half)
