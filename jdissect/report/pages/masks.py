"""Encodes masks of top images compactly enough to embed in a page.

A mask is stored as run lengths in raster order, alternating off and on and starting
with off (which may have length 0); the last run is the rest and not stored. A length is
a varint: seven bits per byte, lowest first, with the top bit set if another byte
follows. A blob of 20 rows takes about 40 bytes; the encoding is lossless.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jdissect.report.top_masks import top_masks
from jdissect.results.layer_result import Result

_UNITS = 64  # units upsampled at a time: one compiled shape
_PIXELS = 2**26  # maximum pixels of these; a file may claim masks of any size


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Many masks of one size.

    Attributes:
      data: run lengths of all masks, concatenated.
      ends: int64[mask], end of each mask in `data`.
      shape: (height, width) of each mask.
      ranks: masks per unit; mask i belongs to the requested unit i // ranks.
    """

    data: UInt8[np.ndarray, " byte"]
    ends: Int[np.ndarray, " mask"]
    shape: tuple[int, int]
    ranks: int


def encode(
    result: Result, units: Int[np.ndarray, " place"], ranks: int, most_bytes: int
) -> Runs | None:
    """Encodes where units fire in their top images, exactly as counted.

    Args:
      result: result of a layer.
      units: numbers of units.
      ranks: top images per unit; reduced if there are fewer, or if the masks would
        exceed `most_bytes`.
      most_bytes: maximum size of `Runs.data`.

    Returns:
      the masks; None if the result has no feature maps or no mask shape, or if even
      one mask per unit does not fit.
    """
    if result.top_map is None or result.mask_shape is None:
        return None
    ranks = min(ranks, result.top_map.shape[1])
    pixels = result.top_map.shape[1] * math.prod(result.mask_shape)
    at_once = min(_UNITS, max(1, _PIXELS // max(1, pixels)))
    parts, sizes = [], []
    for start in range(0, len(units), at_once):
        some = units[start : start + at_once]
        filled = np.pad(some, (0, at_once - len(some)), mode="edge")
        masks = top_masks(result, filled)[: len(some), :ranks]
        data, size = run_lengths(masks.reshape(len(some) * ranks, -1))
        parts.append(data)
        sizes.append(size.reshape(len(some), ranks))
    if not parts:
        return None
    data = np.concatenate(parts)
    size = np.concatenate(sizes)
    fitting = np.flatnonzero(size.sum(axis=0).cumsum() <= most_bytes)
    if not len(fitting):
        return None
    kept = int(fitting[-1]) + 1
    if kept < ranks:
        here = np.repeat(np.arange(size.size) % ranks < kept, size.reshape(-1))
        data, size = data[here], size[:, :kept]
    return Runs(data, size.reshape(-1).cumsum(), result.mask_shape, kept)


def run_lengths(
    masks: Bool[np.ndarray, "mask pixel"],
) -> tuple[UInt8[np.ndarray, " byte"], Int[np.ndarray, " mask"]]:
    """Returns (run lengths of all masks as bytes, number of bytes of each mask)."""
    before = np.pad(masks[:, :-1], ((0, 0), (1, 0)))
    mask, place = np.nonzero(masks != before)
    first = np.ones(len(mask), bool)
    first[1:] = mask[1:] != mask[:-1]
    length = place - np.where(first, 0, np.roll(place, 1))
    # Bytes per varint.
    size = np.ones(len(length), np.int64)
    for bits in range(7, 35, 7):
        size += length >= 1 << bits
    end = size.cumsum()
    data = np.zeros(int(end[-1]) if len(end) else 0, np.uint8)
    for byte in range(int(size.max(initial=0))):
        here = size > byte
        more = np.where(size[here] > byte + 1, 0x80, 0)
        data[(end - size)[here] + byte] = (length[here] >> 7 * byte) & 0x7F | more
    total = np.bincount(mask, weights=size, minlength=len(masks)).astype(np.int64)
    return data, total
