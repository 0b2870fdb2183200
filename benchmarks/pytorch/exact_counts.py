"""Thresholds and counts of a layer in PyTorch, as one would write them today.

Maps are turned so that a unit's lie together, and units go in chunks whose pixels stay
in a processor's cache. A chunk is enlarged once. Some of its pixels give a bound a
little below T_k; T_k is the exact order statistic of the pixels above the bound. Of
these, those above T_k fire, and they look up the concepts that lie under them: one
pixel of a hundred fires, so that counting them takes less than matrix products of
masks with label planes, which touch every pixel.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int

from benchmarks.pytorch.models import bilinear

GRID = 56
_CHUNK = {"cpu": 1 << 21, "cuda": 1 << 26}  # pixels at a time
_STRIDES = (29, 13, 5)  # of the pixels that give the bound; prime to the grid's side
_SAMPLE = 2048  # pixels a unit that give it, at least
_MARGIN = 1.5  # times as many pixels as T_k lets through are above the bound, about
_KRON = 64  # pixels of a map up to which one matrix enlarges it


class Clock:
    """Seconds by stage; waits for the device where there is one.

    Attributes:
      seconds: {stage: seconds}, added up.
    """

    def __init__(self, device: str = "cpu"):
        self._device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[stage] += self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def under(labels: np.ndarray, device: torch.device) -> Int[torch.Tensor, "map pixel"]:
    """What lies under every pixel of all images, a number once.

    Args:
      labels: concept numbers [image, map, 56, 56]; 0 is nothing.
    """
    found = torch.from_numpy(np.ascontiguousarray(labels.swapaxes(0, 1)))
    found = found.flatten(1).to(device)
    for later in range(1, len(found)):
        for earlier in range(later):
            found[later].masked_fill_(found[later] == found[earlier], 0)
    return found


def together(batches: Sequence[torch.Tensor]) -> Float[torch.Tensor, "unit image h w"]:
    """Batches [image, unit, h, w], turned."""
    return torch.cat([maps.transpose(0, 1) for maps in batches], 1).contiguous()


def exact_levels(maps: Float[torch.Tensor, "unit image h w"], quantile: float):
    """T_k of every unit: the least value that at most `quantile` of pixels exceed."""
    return torch.cat([levels for _, levels, _ in _fires(maps, quantile)])


def count(
    maps: Float[torch.Tensor, "unit image h w"],
    labels: Int[torch.Tensor, "map pixel"],
    concepts: int,
    quantile: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Thresholds and counts of a layer.

    Args:
      labels: as `under` gives them.
      concepts: how many numbers there are.

    Returns:
      T_k float32[unit], pixels where a unit fires on a concept int64[concept, unit],
      and where it fires int64[unit].
    """
    pixels = labels.shape[1]
    levels, inside, fires = [], [], []
    for units, some, place in _fires(maps, quantile):
        unit = place.div(pixels, rounding_mode="floor")
        numbers = labels[:, place - unit * pixels].long() + unit * concepts
        found = torch.bincount(numbers.flatten(), minlength=units * concepts)
        levels.append(some)
        inside.append(found.view(units, concepts))
        fires.append(torch.bincount(unit, minlength=units))
    return torch.cat(levels), torch.cat(inside).t(), torch.cat(fires)


def _fires(maps, quantile):
    """By chunk: how many units, their T_k, and where these fire: unit * pixels + pixel.

    The pixels of a unit are those of all images.
    """
    units, images = maps.shape[:2]
    pixels = images * GRID**2
    allowed = int(quantile * pixels)
    stride = next((s for s in _STRIDES if pixels >= _SAMPLE * s), 1)
    above = min(1.0, _MARGIN * quantile)
    size = max(1, _CHUNK[maps.device.type] // pixels)
    enlarge = _enlarger(*maps.shape[2:], maps.device)
    for start in range(0, units, size):
        some = enlarge(maps[start : start + size]).view(-1, pixels)
        sample = some[:, ::stride].contiguous()
        rank = max(1, round((1 - above) * sample.shape[1]))
        bound = sample.kthvalue(rank, 1, keepdim=True).values
        place = (some > bound).flatten().nonzero()[:, 0]
        values = some.flatten()[place]
        unit = place.div(pixels, rounding_mode="floor")
        counts = torch.bincount(unit, minlength=len(some))
        # Side by side, as many as the unit with most has.
        most = max(int(counts.max()), allowed + 1)
        ranked = values.new_full((len(some), most), -torch.inf)
        first = counts.cumsum(0) - counts
        ranked[unit, torch.arange(len(unit), device=unit.device) - first[unit]] = values
        levels = ranked.kthvalue(most - allowed, 1).values
        kept = place[values > levels[unit]]
        low = (counts <= allowed).nonzero()[:, 0]  # the bound was too high for these
        if len(low):
            every = some[low]
            levels[low] = every.kthvalue(pixels - allowed, 1).values
            more = (every > levels[low, None]).nonzero()
            kept = kept[~torch.isin(kept.div(pixels, rounding_mode="floor"), low)]
            kept = torch.cat([kept, low[more[:, 0]] * pixels + more[:, 1]])
        yield len(some), levels, kept


def _enlarger(height: int, width: int, device: torch.device):
    """A function from maps [unit, image, h, w] to their pixels, zeros outside."""
    if height == width == GRID:
        return lambda maps: maps
    rows, across = (bilinear(size, GRID).to(device) for size in (height, width))
    if height * width <= _KRON:
        both = torch.kron(rows, across).t().contiguous()
        return lambda maps: maps.flatten(2) @ both

    def separately(maps):
        wide = maps.reshape(-1, width) @ across.t()
        return torch.matmul(rows, wide.view(-1, height, GRID))

    return separately
