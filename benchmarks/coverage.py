"""How often do the intervals of a comparison contain the truth?

    python -m benchmarks.coverage [--populations=200]

The intervals are those of `jdissect.analysis.uncertainty`. Synthetic populations of
2,000 images, each with two networks of 40 units and 20 concepts that stand on the same
images. A concept is in 5 to 60 % of the images, in sizes that vary (lognormal); a unit
covers a part of its concepts that varies from image to image (gamma), and fires
elsewhere. In *easy* populations a unit has one concept, with an IoU of 0.1 to 0.3, or
none; *near the threshold* every unit overlaps with three concepts nearly alike, at an
IoU of 0.03 to 0.05.

From each population 640 images are drawn into 32 blocks, and the intervals made from
them; more samples of 640 tell what the counts are on average, and the population itself
what they are at infinitely many images. All of it at an IoU threshold of 0.04.
"""

import functools
import sys
import time
from typing import NamedTuple

import numpy as np

from benchmarks.support.options import parse
from jdissect.analysis import resampling, uncertainty
from jdissect.report.tables.layer import aligned
from jdissect.results.group_counts import BLOCKS
from jdissect.runtime import command_line

KINDS = ("easy", "near the threshold")
THRESHOLD = 0.04
IMAGES, SAMPLE, UNITS, CONCEPTS = 2000, 640, 40, 20
_FIRES = 60.0  # pixels of a unit in an image, on average

OPTIONS = {
    "populations": (200, "Of each kind."),
    "draws": (100, "Samples that tell the expected counts."),
}


class Network(NamedTuple):
    """What a network's units and the concepts have in every image, in pixels.

    Only the pairs of a unit and a concept that ever overlap: no other has an IoU.

    Attributes:
      unit, column: int[pair].
      common: float32[image, pair], pixels of both.
      fires: float32[image, unit].
      area: float32[image, concept].
    """

    unit: np.ndarray
    column: np.ndarray
    common: np.ndarray
    fires: np.ndarray
    area: np.ndarray

    @classmethod
    def of(cls, common, fires, area) -> "Network":
        """Keeps the pairs that overlap; `common` is of all, [image, unit, concept]."""
        units, columns = np.nonzero(common.any(axis=0))
        return cls(
            units,
            columns,
            np.ascontiguousarray(common[:, units, columns]),
            fires.astype(np.float32),
            area.astype(np.float32),
        )

    def counts(self, weights) -> resampling.Candidates:
        """The counts of weighted images; weights are float[block, image]."""
        common, fires, area = (
            (weights @ pixels).astype(float)
            for pixels in (self.common, self.fires, self.area)
        )
        union = fires[:, self.unit] + area[:, self.column] - common
        return resampling.Candidates(
            self.unit, self.column, common, union, UNITS, CONCEPTS
        )


def population(rng, kind: str) -> list[Network]:
    """Two networks on the same images."""
    present = rng.random((IMAGES, CONCEPTS)) < rng.uniform(0.05, 0.6, CONCEPTS)
    area = present * np.rint(rng.lognormal(4, 0.8, (IMAGES, CONCEPTS)))
    return [_network(rng, kind, area) for _ in range(2)]


def _network(rng, kind, area):
    mean = area.mean(axis=0)
    if kind == "easy":
        concepts = 1
        some = rng.random(UNITS) < 0.6
        target = np.where(
            some, rng.uniform(0.1, 0.3, UNITS), rng.uniform(0, 0.012, UNITS)
        )
    else:
        concepts, target = 3, rng.uniform(0.03, 0.05, UNITS)
    intersection = np.zeros((IMAGES, UNITS, CONCEPTS), np.float32)
    for unit in range(UNITS):
        for rank, concept in enumerate(rng.permutation(CONCEPTS)[:concepts]):
            iou = target[unit] * (1 - 0.03 * rank)
            common = min(
                iou * (_FIRES + mean[concept]) / (1 + iou),
                0.9 * _FIRES,
                0.9 * mean[concept],
            )
            share = common / mean[concept] * rng.gamma(0.7, 1 / 0.7, IMAGES)
            covered = np.minimum(share, 1) * area[:, concept]
            intersection[:, unit, concept] = np.rint(covered)
    fires = np.rint(_FIRES * rng.gamma(1.5, 1 / 1.5, (IMAGES, UNITS)))
    fires = np.maximum(fires, intersection.max(axis=2))
    return Network.of(intersection, fires, area)


def draw(rng, networks):
    """The counts by block of one sample, of both networks."""
    weights = np.zeros((BLOCKS, IMAGES), np.float32)
    drawn = rng.integers(0, BLOCKS, SAMPLE), rng.integers(0, IMAGES, SAMPLE)
    np.add.at(weights, drawn, 1)
    return [network.counts(weights) for network in networks]


@functools.cache
def _halves():
    return uncertainty.draws(BLOCKS)[1]


def _counts(found):
    """(count, cross-fitted count) of one sample."""
    ones = np.ones((1, BLOCKS))
    crossed = uncertainty.crossed(found, ones, _halves())[0] > THRESHOLD
    plain = resampling.levels(found, ones)[0] > THRESHOLD
    return plain.sum(), crossed.sum(axis=-1).mean()


def trial(rng, kind: str, draws: int) -> dict[str, tuple[bool, float]]:
    """{interval: (whether it contains the truth, its width)} of one population."""
    networks = population(rng, kind)
    everything = np.ones((1, IMAGES))
    truth = [
        (resampling.levels(one.counts(everything), np.ones((1, 1))) > THRESHOLD).sum()
        for one in networks
    ]
    several = [[_counts(one) for one in draw(rng, networks)] for _ in range(draws)]
    expected = np.mean(several, axis=0)  # [network, (plain, cross-fitted)]
    categories = ("object",) * CONCEPTS
    filled = np.ones(BLOCKS, bool)
    first, second = (
        uncertainty.resample(one, filled, categories) for one in draw(rng, networks)
    )
    one = uncertainty.summarize(first, [THRESHOLD]).counts[THRESHOLD]["total"]
    both = uncertainty.difference(first, second, THRESHOLD)
    found = {}
    for name, estimate, plain, crossed, at_all in (
        ("count", one, *expected[0], truth[0]),
        ("difference", both, *(expected[1] - expected[0]), truth[1] - truth[0]),
    ):
        for interval, wanted in (
            ("expected", plain),
            ("cross-fitted", crossed),
            ("population", at_all),
        ):
            low, high = getattr(
                estimate, "interval" if interval == "cross-fitted" else interval
            )
            found[f"{name}, {interval}"] = (low <= wanted <= high, high - low)
    return found


def measure(kind: str, populations: int, draws: int) -> dict[str, tuple[float, float]]:
    """{interval: (coverage, mean width)} over populations of a kind."""
    several = [
        trial(np.random.default_rng([seed, KINDS.index(kind)]), kind, draws)
        for seed in range(populations)
    ]
    return {
        name: tuple(np.mean([found[name] for found in several], axis=0))
        for name in several[0]
    }


def main(argv) -> int:
    """Measures and prints."""
    options = parse(argv, "coverage", OPTIONS)
    start = time.perf_counter()
    rows = [["interval for", "population", "coverage", "mean width"]]
    for kind in KINDS:
        found = measure(kind, options.populations, options.draws)
        for name, (coverage, width) in found.items():
            rows.append([name, kind, f"{coverage:.3f}", f"{width:.2f}"])
    print(
        f"{options.populations} populations of each kind, intervals of "
        f"{uncertainty.CONFIDENCE:.0%}, {time.perf_counter() - start:.0f} s\n"
    )
    print(aligned(rows))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
