"""Counts the best IoU of every unit when its masks meet other images' label maps.

Under a permutation, the masks of image i are compared with the label map of another
image, pi(i). All that is due to the place in an image alone stays (skies are at the
top, and a unit may prefer the top); all that is due to what an image shows is gone. The
null hypothesis is that label maps are exchangeable between images.

Permutations are drawn uniformly from all of them, those with fixed points included: the
set of all permutations is a group with the identity in it, so that the p-value
(1 + b) / (1 + P) is exact at any number of images (Phipson and Smyth 2010,
doi:10.2202/1544-6115.1585). Permutations without fixed points are no group. On average
one image meets its own label map, which raises the null by about one part in the number
of images.

Annotated categories: an image's annotation flags move with its label map, so image i
counts for category k if image pi(i) is annotated in k. With f[i, u] pixels where unit u
fires in image i,

    I[u, c] = sum_i |mask(i, u) and label(pi(i), c)|
    F[u, k] = sum_i f[i, u] annotated[pi(i), k]
    IoU[u, c] = I[u, c] / (F[u, category(c)] + area(c) - I[u, c])

and the concept's area stays, as every label map is used once.
"""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float64, Int

from jdissect.chance_level.packed import Packed
from jdissect.runtime import resources

_WORDS = 2**17  # words of masks counted at once


class Best(NamedTuple):
    """The best IoU of every unit.

    Attributes:
      iou: float64[..., unit]; 0 for a unit that overlaps no concept.
      concept: int32[..., unit], its column, the first on a tie; -1 without one.
    """

    iou: Float64[np.ndarray, "*batch unit"]
    concept: Int[np.ndarray, "*batch unit"]


def draw(images: int, seed: int, number: int) -> Int[np.ndarray, " image"]:
    """Returns permutation `number` of a seed, int32, uniform over all permutations.

    It depends only on the arguments: it is the order of random 64-bit numbers of
    Philox, whose stream NumPy keeps in all versions.
    """
    bits = np.random.Philox(key=np.array([seed, number], np.uint64))
    order = np.argsort(bits.random_raw(images), kind="stable")
    return order.astype(np.int32)


def null(
    packed: Packed,
    category: Int[np.ndarray, " concept"],
    permutations: int,
    seed: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Best:
    """Returns the best IoUs under random permutations, [permutation, unit].

    Args:
      packed: masks and label maps.
      category: category of each concept, a column of `packed.annotated`.
      permutations: their number.
      seed: see `draw`.
      advance: called with 1 after each permutation.
    """
    counter = Counter(packed, category)
    iou = np.zeros((permutations, packed.units))
    concept = np.full((permutations, packed.units), -1, np.int32)
    workers = min(permutations, resources.cores())
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        drawn = (draw(packed.images, seed, number) for number in range(permutations))
        try:
            for number, found in enumerate(pool.map(counter.best, drawn)):
                iou[number], concept[number] = found
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Best(iou, concept)


class Counter:
    """Counts overlaps under permutations of the label maps."""

    def __init__(self, packed: Packed, category: Int[np.ndarray, " concept"]):
        self._packed, self._category = packed, np.asarray(category)
        self._areas = packed.areas()
        self._fires = packed.fires()
        self._always = bool(packed.annotated.all())
        # Row of the first word of each unit.
        self._first = np.searchsorted(packed.unit, np.arange(packed.units + 1))

    def best(self, permutation: Int[np.ndarray, " image"]) -> Best:
        """Returns every unit's best IoU; image i meets label map `permutation[i]`."""
        packed = self._packed
        iou = np.zeros(packed.units)
        concept = np.full(packed.units, -1, np.int32)
        if not packed.concepts:
            return Best(iou, concept)
        fires = self._counted_fires(permutation)
        for units in self._parts():
            common = self.intersection(permutation, units)
            union = fires[self._category, units].T + self._areas - common
            quotient = common / np.maximum(union, 1)
            column = quotient.argmax(axis=1)
            iou[units] = np.take_along_axis(quotient, column[:, None], 1)[:, 0]
            concept[units] = np.where(iou[units] > 0, column, -1)
        return Best(iou, concept)

    def _counted_fires(self, permutation) -> Int[np.ndarray, "category unit"]:
        """Returns the pixels where units fire, over the images that count."""
        categories = self._packed.annotated.shape[1]
        if self._always:
            total = np.asarray(self._fires.sum(axis=0)).reshape(1, -1)
            return np.repeat(total, max(categories, 1), axis=0)
        counts = self._packed.annotated[permutation].T.astype(np.int64)
        return np.asarray((self._fires.T @ counts.T).T)

    def _parts(self) -> Iterator[slice]:
        """Yields ranges of units with about `_WORDS` words each."""
        start = 0
        while start < self._packed.units:
            most = self._first[start] + _WORDS
            stop = int(np.searchsorted(self._first, most, "right")) - 1
            stop = min(max(stop, start + 1), self._packed.units)
            yield slice(start, stop)
            start = stop

    def intersection(
        self, permutation: Int[np.ndarray, " image"], units: slice
    ) -> Int[np.ndarray, "unit concept"]:
        """Returns the pixels that units and concepts share, int64."""
        packed = self._packed
        words = slice(self._first[units.start], self._first[units.stop])
        row = permutation[packed.image[words]].astype(np.int64) * packed.blocks
        row += packed.block[words]
        start = packed.start[row]
        length = packed.start[row + 1] - start
        # The entries of every word's row, one after the other.
        before = np.cumsum(length) - length
        entry = np.repeat(start - before, length)
        entry += np.arange(len(entry))
        bits = np.repeat(packed.bits[words], length)
        bits &= packed.label[entry]
        unit = np.repeat(packed.unit[words] - np.int32(units.start), length)
        # SciPy adds up equal places in one pass, with no sort.
        return scipy.sparse.coo_array(
            (np.bitwise_count(bits).astype(np.int64), (unit, packed.concept[entry])),
            shape=(units.stop - units.start, packed.concepts),
        ).toarray()
