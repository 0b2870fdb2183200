"""Bounds AUROC, average precision and the best threshold's IoU from histograms.

For a pair of a unit and a concept, over all pixels of the images that count for the
concept's category: the unit's activation ranks the pixels; the concept is the truth.

    AUROC       P(a > b) + P(a = b) / 2 for a pixel a on the concept and one b beside it
    AP          sum over thresholds t of (recall(t) - recall(t')) precision(t), t' the
                threshold before; as scikit-learn's `average_precision_score`
    best IoU    the largest IoU of {activation > t} with the concept, over all t

Pixels are counted by bins of their activation, for all pixels and for those of the
concept. The order of pixels within a bin is not known, but every order has an AUROC, an
AP and a best IoU, and the least and the largest of them bound the true ones: the bounds
are certain, not estimates. A bin of a single float32 adds nothing to the distance
between the bounds. Where that is above the aim, bins are placed anew from what was
counted (`refined`), and the images are read again.

(NeuronEval, Oikarinen et al. 2025, calls these "inverse AUC" and "inverse AUPRC".)
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Int

from jdissect.base.arrays import AnyArray
from jdissect.ops import float_keys
from jdissect.ops.upsample import interpolate, plan_axis, stretch
from jdissect.scoring.samples import Batch, planes

AIM = 1e-3  # largest distance between bounds
BINS = 2**12  # per unit
ENTRIES = 2**23  # of the first histograms of all pairs
REFINED_ENTRIES = 2**25  # of histograms that are counted anew
_TILE = 64  # units upsampled at a time
_FEW = 16  # pixels of a concept in a bin that are placed one by one


class Pairs(NamedTuple):
    """The pairs to score, ordered by unit.

    Attributes:
      unit, column: int64[pair].
    """

    unit: Int[np.ndarray, " pair"]
    column: Int[np.ndarray, " pair"]


def choose(
    quotient: Float[np.ndarray, "unit concept"],
    present: Sequence[bool] | np.ndarray,
    best: Int[np.ndarray, " unit"],
) -> Pairs:
    """Returns each unit with the concepts of highest IoU, as many as are affordable.

    Args:
      quotient: IoU of every pair.
      present: whether each concept has a pixel; others are left out.
      best: each unit's concept, which is always among them; -1 for none.
    """
    units = len(quotient)
    number = max(ENTRIES // (BINS * max(units, 1)), 1)
    present = np.asarray(present, bool)
    ranked = np.where(present, quotient, -1.0)
    named = np.flatnonzero(best >= 0)
    ranked[named, best[named]] = 2
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :number]
    unit = np.repeat(np.arange(units), order.shape[1])
    column = order.reshape(-1)
    kept = ranked[unit, column] >= 0
    return Pairs(unit[kept], column[kept])


@dataclasses.dataclass(frozen=True)
class Histograms:
    """Counts of pixels at or above each of a unit's edges.

    Attributes:
      edges: for each unit, ascending float32; None for a unit that is not counted.
      pairs: the pairs.
      category: int[concept], category of each concept.
      every: {(unit, category): int64[edge]}, all pixels of the images that count.
      concept: {pair: int64[edge]}, pixels of the concept.
      pixels: int64[category], pixels of the images that count.
      area: int64[concept], pixels of each concept.
    """

    edges: Sequence[Float[np.ndarray, " edge"] | None]
    pairs: Pairs
    category: Int[np.ndarray, " concept"]
    every: dict[tuple[int, int], Int[np.ndarray, " edge"]]
    concept: dict[int, Int[np.ndarray, " edge"]]
    pixels: Int[np.ndarray, " category"]
    area: Int[np.ndarray, " concept"]

    @classmethod
    def empty(
        cls,
        edges: Sequence[Float[np.ndarray, " edge"] | None],
        pairs: Pairs,
        category: Int[np.ndarray, " concept"],
        categories: int,
    ) -> "Histograms":
        """Returns counts of no images."""
        every, concept = {}, {}
        for pair, (unit, column) in enumerate(zip(*map(list, pairs), strict=True)):
            if (own := edges[unit]) is not None:
                every[unit, int(category[column])] = np.zeros(len(own), np.int64)
                concept[pair] = np.zeros(len(own), np.int64)
        return cls(
            edges,
            pairs,
            category,
            every,
            concept,
            np.zeros(categories, np.int64),
            np.zeros(len(category), np.int64),
        )

    @functools.cached_property
    def _pairs_of(self) -> Mapping[int, list[int]]:
        """{unit: its pairs}."""
        found: dict[int, list[int]] = {}
        for pair in self.concept:
            found.setdefault(int(self.pairs.unit[pair]), []).append(pair)
        return found

    def add(self, batch: Batch) -> None:
        """Adds images, in place; in any order and grouping the counts are the same."""
        images, _, height, width = batch.columns.shape
        self.pixels[:] += batch.annotated.sum(axis=0) * (height * width)
        wanted = {int(self.pairs.column[pair]) for pair in self.concept}
        where: dict[int, list[np.ndarray]] = {column: [] for column in wanted}
        for image, columns in enumerate(batch.columns):
            for column, plane in zip(*planes(columns), strict=True):
                place = np.flatnonzero(plane)
                self.area[column] += len(place)
                if column in where:
                    where[int(column)].append(place + image * height * width)
        at = {column: np.concatenate(p) for column, p in where.items() if p}
        for unit, values in _pixels(batch.features, (height, width), self._pairs_of):
            self._count(unit, values, batch.annotated, at)

    def _count(self, unit, values, annotated, at) -> None:
        """Adds one unit's pixels, float32[image, pixel]."""
        edges = self.edges[unit]
        assert edges is not None  # only units with edges are counted
        flat = values.reshape(-1)
        pairs = self._pairs_of[unit]
        known: dict[bytes, np.ndarray] = {}  # categories often share their images
        for category in {int(self.category[self.pairs.column[p]]) for p in pairs}:
            counted = annotated[:, category]
            if (key := counted.tobytes()) not in known:
                known[key] = _at_least(values[counted].reshape(-1), edges)
            self.every[unit, category] += known[key]
        for pair in pairs:
            place = at.get(int(self.pairs.column[pair]))
            if place is not None:
                self.concept[pair] += _at_least(flat[place], edges)

    def merge(self, other: "Histograms") -> None:
        """Adds the counts of other images, in place."""
        for both, counts in self.every.items():
            counts += other.every[both]
        for pair, counts in self.concept.items():
            counts += other.concept[pair]
        self.pixels[:] += other.pixels
        self.area[:] += other.area

    def fired(self, pair: int, threshold: float | np.floating) -> int:
        """Returns the concept's pixels where the unit fires, from the first edges."""
        edges = self.edges[int(self.pairs.unit[pair])]
        assert edges is not None  # of a pair that is counted
        return int(self.concept[pair][np.searchsorted(edges, firing_edge(threshold))])

    def bounds(self) -> Iterator[tuple[int, "Bounds"]]:
        """Yields (pair, its bounds)."""
        for pair, counts in self.concept.items():
            unit, column = self.pairs.unit[pair], self.pairs.column[pair]
            category = int(self.category[column])
            yield (
                pair,
                bound(
                    self.edges[unit],
                    self.every[int(unit), category],
                    counts,
                    int(self.pixels[category]),
                    int(self.area[column]),
                ),
            )


def _at_least(values, edges):
    """Counts the values at or above each edge."""
    return len(values) - np.searchsorted(np.sort(values), edges)


def _pixels(features, shape, units):
    """Yields (unit, float32[image, pixel]) of some units, canonical as everywhere."""
    wanted = sorted(units)
    maps = np.ascontiguousarray(np.moveaxis(features, -1, 0))
    for start in range(0, len(wanted), _TILE):
        some = wanted[start : start + _TILE]
        # Always the same number of units: another one would be compiled anew.
        padded = np.resize(some, _TILE) if len(wanted) > _TILE else some
        pixels = np.asarray(_upsampled(maps[padded], np.int32(0), shape=shape))
        yield from zip(some, pixels, strict=False)


@functools.partial(jax.jit, static_argnames="shape")
def _upsampled(
    maps: Float[AnyArray, "unit image height width"],
    zero: Int[AnyArray, ""],
    *,
    shape: tuple[int, int],
) -> Float[Array, "unit image pixel"]:
    """The pixels of `ops.upsample`, those of a unit side by side.

    As there, `zero` is an argument: without it the last bit of a pixel may differ.
    """
    rows, columns = map(plan_axis, maps.shape[-2:], shape)
    grid = stretch(maps[..., None], rows, columns, zero)[..., 0]
    above = jnp.take(grid, rows.low, axis=-2)
    below = jnp.take(grid, rows.high, axis=-2)
    pixels = interpolate(above, below, rows.weight[:, None], zero)
    return float_keys.canonical(pixels).reshape(*pixels.shape[:2], -1)


class Bounds(NamedTuple):
    """What is certain of a pair.

    Attributes:
      auroc, ap, iou: (low, high).
      threshold: a unit that fires above it reaches the IoU `iou.low`.
      contribution: float64[bin], how much each bin adds to the distances.
    """

    auroc: tuple[float, float]
    ap: tuple[float, float]
    iou: tuple[float, float]
    threshold: float
    contribution: Float[np.ndarray, " bin"]

    @property
    def width(self) -> float:
        """The largest distance of two bounds."""
        return max(high - low for low, high in (self.auroc, self.ap, self.iou))


def bound(
    edges: Float[np.ndarray, " edge"],
    every: Int[np.ndarray, " edge"],
    concept: Int[np.ndarray, " edge"],
    pixels: int,
    area: int,
) -> Bounds:
    """Returns bounds from counts of the values at or above ascending edges.

    Without a pixel of the concept or beside it AUROC is 0.5; without one of the concept
    AP and IoU are 0.

    Args:
      edges: float32, ascending.
      every: pixels at or above each edge.
      concept: those of the concept.
      pixels: number of all pixels.
      area: number of those of the concept.
    """
    added = np.zeros(len(edges) + 1)
    if not area:
        return Bounds((0.5, 0.5), (0.0, 0.0), (0.0, 0.0), 0.0, added)
    # Bins from the highest values down; only those with the concept matter. `hits` and
    # `misses` count its pixels and others in the bins before.
    concept = np.concatenate([[0], concept[::-1], [area]])
    inside = np.diff(concept)
    bins = np.flatnonzero(inside)
    every = np.concatenate([[0], every[::-1], [pixels]])
    positive = inside[bins].astype(np.float64)
    hits = concept[bins].astype(np.float64)
    misses = every[bins] - hits
    negative = every[bins + 1] - every[bins] - positive
    keys = float_keys.to_keys_host(edges)[::-1]
    lower = np.concatenate([keys, [float_keys.KEY_OF_LOWEST]])
    # A bin of one float32: from its lower edge to the next.
    single = (np.concatenate([[2**40], keys]) - lower == 1)[bins]

    auroc = 0.5, 0.5
    if others := pixels - area:
        pairs = positive * negative / area / others
        least = positive * (others - misses - negative) / area / others
        low = float((least + np.where(single, pairs / 2, 0)).sum())
        spread = np.where(single, 0, pairs)
        auroc = low, low + float(spread.sum())
        added[bins] += spread

    # All of the concept first, as one value; or all of it last, one by one.
    high = positive * _share(hits + positive, misses) / area
    tied = positive * _share(hits + positive, misses + negative) / area
    low = _one_by_one(hits, misses + negative, positive) / area
    low, high = np.where(single, tied, low), np.where(single, tied, high)
    ap = max(float(low.sum()), 0.0), min(float(high.sum()), 1.0)
    added[bins] += high - low

    # IoU is largest just after pixels of the concept.
    reached = (hits + positive) / (misses + negative + area)
    best = int(reached.argmax())
    iou = float(reached[best])
    # Within a bin, at most with its whole concept and nothing else.
    beyond = np.where(single | (negative == 0), 0, (hits + positive) / (misses + area))
    beyond = np.maximum(beyond - iou, 0)
    added[bins] += beyond
    return Bounds(
        auroc,
        ap,
        (iou, iou + float(beyond.max())),
        float(
            float_keys.from_keys_host(np.array(max(lower[bins[best]] - 1, lower[-1])))
        ),
        added,
    )


def _share(part, other):
    return part / np.maximum(part + other, 1)


def _one_by_one(hits, misses, positive):
    """Returns the sum over i = 1 ... positive of (hits + i) / (hits + i + misses)."""
    found = np.zeros_like(hits)
    many = positive > _FEW
    more, before, others = positive[many], hits[many], misses[many]
    end = scipy.special.digamma(before + others + more + 1)
    start = scipy.special.digamma(before + others + 1)
    # Less what is lost to rounding, so that it stays a bound.
    lost = 1e-15 * others * np.abs(end)
    found[many] = np.maximum(more - others * (end - start) - lost, 0)
    for number in range(1, _FEW + 1):
        few = ~many & (positive >= number)
        found[few] += _share(hits[few] + number, misses[few])
    return found


def first_edges(
    counts: Int[np.ndarray, " bin"],
    edges: Float[np.ndarray, " edge"],
    threshold: float | np.floating,
) -> Float[np.ndarray, " edge"]:
    """Returns a unit's edges from the stored histogram of its pixels.

    Half of the bins share out all pixels evenly, for AUROC; the others hold the same
    share of the pixels above them, for AP. Zero has a bin of its own.

    Args:
      counts: int64[bin], pixels by bin.
      edges: float32[bin + 1], their edges.
      threshold: T_k; the float above it is an edge, see `firing_edge`.
    """
    total = counts[::-1].cumsum()[::-1]
    share = counts / max(counts.sum(), 1)
    steep = np.where(counts > 0, counts / np.maximum(total, 1), 0)
    weight = share + steep / max(steep.sum(), 1e-300)
    placed = _placed(edges, weight, BINS)
    return np.unique(np.append(placed, firing_edge(threshold)))


def firing_edge(threshold: float | np.floating) -> np.float32:
    """Returns the least float32 at which a unit of a threshold fires."""
    key = float_keys.to_keys_host(np.array([threshold], np.float32)) + 1
    return np.float32(float_keys.from_keys_host(key)[0])


def refined(
    edges: Float[np.ndarray, " edge"],
    contributions: Sequence[Float[np.ndarray, " bin"]],
    lowest: float,
    highest: float,
    most: int,
) -> Float[np.ndarray, " edge"]:
    """Returns new edges for a unit whose bounds are too far apart.

    A bin that is split in n adds about 1 / n of what it added, so the sum is least with
    bins in proportion to the square root of what each added.

    Args:
      edges: the unit's edges.
      contributions: what each bin, from the highest down, adds in each of its pairs.
      lowest, highest: all of the unit's pixels are between them.
      most: largest number of new edges.
    """
    root = np.sqrt(np.max(contributions, axis=0))[::-1]
    number = int(np.clip(root.sum() ** 2 / (AIM / 4), min(BINS, most), most))
    above = np.nextafter(np.float32(highest), np.float32(np.inf))
    ends = np.concatenate([[lowest], np.clip(edges, lowest, above), [above]])
    return _placed(ends.astype(np.float32), root, number)


def _placed(ends, weight, number):
    """Places edges in proportion to each bin's weight, evenly within a bin."""
    # `np.interp` needs ascending positions, and a bin without weight has no edges.
    position = np.concatenate([[0], np.cumsum(weight, dtype=np.float64)])
    if position[-1] <= 0:
        position = np.arange(len(ends), dtype=np.float64)
    at = np.linspace(0, position[-1], number + 1)
    placed = np.interp(at, position, ends.astype(np.float64)).astype(np.float32)
    keys = [float_keys.to_keys_host(placed), float_keys.to_keys_host(ends)]
    return float_keys.from_keys_host(np.unique(np.concatenate([*keys, [0, 1]]))).astype(
        np.float32
    )
