"""Runs a network on pictures and reads activations where something was changed.

A unit is labelled by where its *upsampled* activation is high, so the activation of a
thing is the mean of the upsampled activation over the thing's pixels on the mask grid.
Upsampling is linear: with R_y and R_x its matrices, the mean over the pixels P is

    sum_yx P[y, x] (R_y f R_x^T)[y, x] / |P| = sum_ij (R_y^T P R_x)[i, j] f[i, j] / |P|

so the pixels are pulled back to the feature grid once and nothing is upsampled.

The *maximum* is that of the feature map, as in `Result.top_value`.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jdissect.dissection.features import Images, Record
from jdissect.ops.upsample import plan_axis

MEAN, MAXIMUM = 0, 1  # rows of what is read


class Reading(NamedTuple):
    """What to read in a picture.

    Attributes:
      concept: number of the concept whose units are read.
      picture: number of the pair's picture.
      control: whether another thing was changed.
      after: whether the picture is the changed one.
      region: the pixels of the thing, on the mask grid.
    """

    concept: int
    picture: int
    control: bool
    after: bool
    region: Bool[np.ndarray, "height width"]


class Shot(NamedTuple):
    """A picture for the network.

    Attributes:
      pixels: uint8, 0 .. 255.
      maps: its label maps on the mask grid.
      readings: what to read in it.
      picture: its number if it is not changed, else -1.
    """

    pixels: Shaped[np.ndarray, "side side 3"]
    maps: Int[np.ndarray, "map height width"]
    readings: tuple[Reading, ...]
    picture: int = -1


class Pairs(NamedTuple):
    """Activations of the units of one concept, with and without a thing.

    Attributes:
      pictures: int64[pair], ascending.
      with_it, without: float32[pair, 2, unit]: mean over the thing's pixels, maximum.
    """

    pictures: Int[np.ndarray, " pair"]
    with_it: Float[np.ndarray, "pair 2 unit"]
    without: Float[np.ndarray, "pair 2 unit"]


class Responses(NamedTuple):
    """Activations of a layer.

    Attributes:
      changed: {concept: pairs with and without it}.
      controls: {concept: pairs with and without another thing}.
      maximum: float32[picture, unit], of the pictures that were not changed.
    """

    changed: dict[int, Pairs]
    controls: dict[int, Pairs]
    maximum: Float[np.ndarray, "picture unit"]


Run = Callable[[Iterable[Images]], Iterable[Record]]


def measure(
    shots: Iterable[Shot],
    units: Mapping[str, Mapping[int, Int[np.ndarray, " unit"]]],
    run: Run,
    size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Responses]:
    """Runs the network on all shots.

    Args:
      shots: the pictures, made while the network runs on those before.
      units: {layer: {concept: numbers of its units}}.
      run: batches of pictures -> their feature maps, in order.
      size: pictures per batch.
      advance: is told how many pictures are done.
    """
    waiting: list[list[Shot]] = []
    stores = {layer: _Store(of_concept) for layer, of_concept in units.items()}

    def batches() -> Iterator[Images]:
        for batch in _ahead(_batches(shots, size)):
            waiting.append(batch)
            yield _images(batch, size)

    for record in run(batches()):
        batch = waiting.pop(0)
        for layer, store in stores.items():
            maps = np.asarray(record.features[layer], np.float32)
            for shot, values in zip(batch, maps, strict=False):
                store.add(shot, values)
        advance(len(batch))
    return {layer: store.responses() for layer, store in stores.items()}


def maps_of(
    shots: Iterable[Shot], layer: str, run: Run, size: int
) -> Float[np.ndarray, "shot height width unit"]:
    """Returns a layer's feature maps of some pictures."""
    batches = list(_batches(shots, size))
    records = run(_images(batch, size) for batch in batches)
    pairs = zip(records, batches, strict=True)
    found = [
        np.asarray(record.features[layer], np.float32)[: len(batch)]
        for record, batch in pairs
    ]
    return np.concatenate(found)


class _Store:
    """Collects what is read of one layer."""

    def __init__(self, units: Mapping[int, Int[np.ndarray, " unit"]]):
        self._units = units
        # {(control, concept): {picture: [before, after]}}
        self._read: dict[tuple[bool, int], dict[int, list[Any]]] = {}
        self._maximum: list[np.ndarray] = []

    def add(self, shot: Shot, maps: Float[np.ndarray, "height width unit"]) -> None:
        highest = maps.max(axis=(0, 1))
        if shot.picture >= 0:
            self._maximum.append(highest)
        for one in shot.readings:
            units = self._units.get(one.concept)
            if units is None:
                continue
            weights = pulled_back(one.region, maps.shape[:2])
            mean = np.tensordot(weights, maps[:, :, units], 2)
            pair = self._read.setdefault((one.control, one.concept), {})
            both = pair.setdefault(one.picture, [None, None])
            both[one.after] = np.stack([mean, highest[units]])

    def responses(self) -> Responses:
        found: tuple[dict[int, Pairs], dict[int, Pairs]] = ({}, {})
        for (control, concept), pairs in self._read.items():
            pictures = np.array(sorted(pairs), np.int64)
            both = np.stack([np.stack(pairs[int(n)]) for n in pictures])
            both = both.astype(np.float32)
            found[control][concept] = Pairs(pictures, both[:, 0], both[:, 1])
        maximum = np.stack(self._maximum) if self._maximum else np.zeros((0, 0))
        return Responses(*found, maximum.astype(np.float32))


def pulled_back(
    region: Bool[np.ndarray, "height width"], grid: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """Returns weights of the feature grid that give the mean over upsampled pixels.

    Args:
      region: pixels of the mask grid, at least one.
      grid: (height, width) of the feature map.
    """
    rows, columns = (
        _matrix(size, target) for size, target in zip(grid, region.shape, strict=True)
    )
    return (rows.T @ region @ columns / region.sum()).astype(np.float32)


@functools.cache
def _matrix(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Returns the matrix that upsamples one axis; zeros lie outside the grid."""
    axis = plan_axis(size, target)
    padded = np.zeros((target, size + 2 * axis.pad))
    pixels = np.arange(target)
    np.add.at(padded, (pixels, axis.low), 1.0 - axis.weight)
    np.add.at(padded, (pixels, axis.high), axis.weight)
    return padded[:, axis.pad : axis.pad + size]


def _batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    batch: list[Shot] = []
    for shot in shots:
        batch.append(shot)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _images(batch: list[Shot], size: int) -> Images:
    """Returns a batch of one size; what is missing repeats the last picture."""
    full = batch + [batch[-1]] * (size - len(batch))
    maps = np.stack([shot.maps for shot in full])
    return Images(
        index=np.arange(size, dtype=np.int32),
        valid=np.arange(size) < len(batch),
        pixels=np.stack([shot.pixels for shot in full]),
        labels=lambda: maps,
    )


def _ahead(batches: Iterator[list[Shot]]) -> Iterator[list[Shot]]:
    """Yields what an iterator does; a thread makes the next one meanwhile."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
