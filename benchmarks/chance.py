"""Are p-values, q-values and sets of concepts what they say?

    python -m benchmarks.chance [--layers=200] [--save]

Layers of 64 units over 200 drawn images with 40 concepts. Units and concepts have sizes
that vary from image to image (lognormal, from nearly even to a few images only), and
places that they prefer, so that some overlap by place alone. *Without* planted units,
masks and labels are independent given the place: every unit that is called above chance
is a false one. *With* planted units, every second unit also fires on a share of the
pixels of one concept, in place of as many other pixels.

Sets of concepts are judged on populations of 2,000 images like those of
`benchmarks.coverage`, of which 640 are drawn: how often is the concept of highest IoU
in the population within the set?
"""

import sys
import time
from typing import NamedTuple

import numpy as np

from benchmarks import coverage
from benchmarks.support import record
from benchmarks.support.options import parse
from jdissect.analysis import concept_sets
from jdissect.base.atomic_files import write_whole
from jdissect.chance_level import permutation
from jdissect.chance_level.p_values import PValues, effective_images, p_values
from jdissect.chance_level.packed import Packed, pack
from jdissect.report.tables.layer import aligned
from jdissect.runtime import command_line

IMAGES, UNITS, CONCEPTS, SHAPE = 200, 64, 40, (28, 32)
QUANTILE = 0.01
PERMUTATIONS = 100
STRENGTHS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
ALPHAS = (0.1, 0.05, 0.01, 0.001, 0.0001)
# Population: number of concepts of a unit, and how far each is below the one before.
SETS = {
    "two alike": (2, 0.0),
    "three near each other": (3, 0.03),
    "three apart": (3, 0.3),
    "eight alike": (8, 0.0),
}

OPTIONS = {
    "layers": (200, "Without planted units; a fifth as many for each strength."),
    "populations": (50, "Of each kind, for sets of concepts."),
    "save": (False, "Write results/chance.md."),
}


class Image(NamedTuple):
    """As `dissection.firing.OnImage`."""

    columns: np.ndarray
    annotated: np.ndarray
    unit: np.ndarray
    pixel: np.ndarray


class Judged(NamedTuple):
    """A layer against chance.

    Attributes:
      values: its p-values.
      planted: bool[unit].
      iou: best IoU of every unit.
    """

    values: PValues
    planted: np.ndarray
    iou: np.ndarray


def layer(seed: int, strength: float = 0.0) -> tuple[Packed, np.ndarray]:
    """(masks and label maps of a drawn layer, bool[unit] of its planted units)."""
    rng = np.random.default_rng([seed, int(1000 * strength)])
    pixels = SHAPE[0] * SHAPE[1]
    there = rng.random((IMAGES, CONCEPTS)) < rng.uniform(0.01, 0.5, CONCEPTS)
    size = there * rng.lognormal(-2.5, 0.8, (IMAGES, CONCEPTS))
    labels = _windows(rng, size, 0.7)
    # From units that fire about alike on all images to those that fire on a few.
    size = rng.lognormal(0, rng.uniform(0.3, 2.5, UNITS), (IMAGES, UNITS))
    size *= rng.random((IMAGES, UNITS)) < rng.uniform(0.05, 1, UNITS)
    size *= 2 * QUANTILE / np.maximum(size.mean(axis=0), 1e-9)
    masks = _windows(rng, size, 0.5)
    planted = np.arange(UNITS) % 2 == (0 if strength else 2)
    for unit in np.flatnonzero(planted):
        concept = labels[:, rng.integers(CONCEPTS)]
        own = concept & (rng.random((IMAGES, pixels)) < strength)
        before = masks[:, unit].sum()
        kept = rng.random((IMAGES, pixels)) < max(0, 1 - own.sum() / max(before, 1))
        masks[:, unit] = own | (masks[:, unit] & kept)
    return pack(_images(masks, labels), UNITS, CONCEPTS), planted


def _windows(rng, size, filled: float) -> np.ndarray:
    """bool[image, thing, pixel]: a window about a preferred place, partly filled."""
    images, things = size.shape
    pixels = SHAPE[0] * SHAPE[1]
    place = rng.random(things) + 0.25 * rng.standard_normal((images, things))
    pixel = np.arange(pixels) / pixels
    away = np.abs((pixel - place[..., None] + 0.5) % 1 - 0.5)
    inside = away < np.minimum(size, 0.6)[..., None] / 2
    return inside & (rng.random(inside.shape) < filled)


def _images(masks, labels):
    number = np.arange(1, CONCEPTS + 1, dtype=np.int16)[:, None]
    for mask, label in zip(masks, labels, strict=True):
        unit, pixel = (index.astype(np.int32) for index in np.nonzero(mask))
        columns = (label * number).reshape(CONCEPTS, *SHAPE)
        yield Image(columns, np.ones(1, bool), unit, pixel)


def judge(seed: int, strength: float = 0.0, permutations: int = PERMUTATIONS) -> Judged:
    """A drawn layer against chance."""
    packed, planted = layer(seed, strength)
    category = np.zeros(CONCEPTS, int)
    iou = permutation.Counter(packed, category).best(np.arange(IMAGES)).iou
    null = permutation.null(packed, category, permutations, seed)
    fires = packed.fires().toarray()
    spread = effective_images(fires.sum(axis=0), (fires**2).sum(axis=0))
    return Judged(p_values(iou, null.iou, spread), planted, iou)


def set_trial(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(whether the true best is in each unit's set, sizes of the sets)."""
    concepts, apart = SETS[kind]
    rng = np.random.default_rng([seed, list(SETS).index(kind)])
    images, units, columns = coverage.IMAGES, coverage.UNITS, coverage.CONCEPTS
    there = rng.random((images, columns)) < rng.uniform(0.05, 0.6, columns)
    area = there * np.rint(rng.lognormal(4, 0.8, (images, columns)))
    mean, fired = area.mean(axis=0), 60.0
    common = np.zeros((images, units, columns), np.float32)
    for unit in range(units):
        target = rng.uniform(0.05, 0.2)
        for rank, concept in enumerate(rng.permutation(columns)[:concepts]):
            iou = target * (1 - apart * rank)
            wanted = iou * (fired + mean[concept]) / (1 + iou)
            wanted = min(wanted, 0.9 * fired, 0.9 * mean[concept])
            share = wanted / mean[concept] * rng.gamma(0.7, 1 / 0.7, images)
            common[:, unit, concept] = np.rint(np.minimum(share, 1) * area[:, concept])
    fires = np.rint(fired * rng.gamma(1.5, 1 / 1.5, (images, units)))
    fires = np.maximum(fires, common.max(axis=2))
    network = coverage.Network.of(common, fires, area)
    whole = network.counts(np.ones((1, images)))
    iou = np.zeros((units, columns))
    iou[whole.unit, whole.column] = whole.intersection[0] / whole.union[0]
    truth = iou.argmax(axis=1)
    (found,) = coverage.draw(rng, [network])
    sets = concept_sets.of_candidates(found)
    inside = [truth[unit] in sets.of(unit) for unit in range(units)]
    return np.array(inside), sets.sizes


def main(argv) -> int:
    """Measures and prints."""
    options = parse(argv, "chance", OPTIONS)
    start = time.perf_counter()
    parts = []
    for part in (
        lambda: _calibration(options.layers),
        lambda: _power(max(options.layers // 5, 1)),
        lambda: _sets(options.populations),
    ):
        parts.append(part())
        print(parts[-1], flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.save:
        where = record.in_words(record.environment())
        command = (
            f"`python -m benchmarks.chance --layers={options.layers} "
            f"--populations={options.populations} --save`"
        )
        text = "\n".join(["# Chance", "", f"{command} on {where}", "", "```", *parts])
        write_whole(record.RESULTS / "chance.md", f"{text}```\n".encode())
    return 0


def _calibration(layers: int) -> str:
    found = [judge(seed) for seed in range(layers)]
    pooled, exact = (
        np.concatenate([getattr(each.values, name) for each in found])
        for name in ("pooled", "exact")
    )
    rows = [["p <=", "units", "of the unit alone", "binomial error"]]
    for alpha in ALPHAS:
        error = np.sqrt(alpha * (1 - alpha) / len(pooled))
        shares = [f"{(p <= alpha).mean():.5f}" for p in (pooled, exact)]
        rows.append([f"{alpha:g}", *shares, f"{error:.5f}"])
    false = np.mean([each.values.q.min() <= 0.05 for each in found])
    level = np.quantile(np.concatenate([each.iou for each in found]), 0.95)
    return (
        f"{layers} layers without planted units, {PERMUTATIONS} permutations: share of "
        f"the {len(pooled):,} units below p\n\n{aligned(rows)}\n\n"
        f"layers with a unit of q <= 0.05: {false:.3f} +- "
        f"{np.sqrt(0.05 * 0.95 / layers):.3f}; 95 % of IoUs are below {level:.3f}\n"
    )


def _power(layers: int) -> str:
    rows = [["strength", "IoU of planted units", "found", "false of those found"]]
    for strength in STRENGTHS:
        found = [judge(seed, strength) for seed in range(layers)]
        planted = np.concatenate([each.planted for each in found])
        iou = np.concatenate([each.iou for each in found])
        q = np.concatenate([each.values.q for each in found])
        false = [
            (~each.planted & (each.values.q <= 0.05)).sum()
            / max((each.values.q <= 0.05).sum(), 1)
            for each in found
        ]
        rows.append(
            [
                f"{strength:g}",
                f"{np.median(iou[planted]):.3f}",
                f"{(q[planted] <= 0.05).mean():.3f}",
                f"{np.mean(false):.3f}",
            ]
        )
    return (
        f"{layers} layers for each strength, half of the units planted, q <= 0.05\n\n"
        f"{aligned(rows)}\n"
    )


def _sets(populations: int) -> str:
    rows = [["concepts of a unit", "truth is in the set", "concepts in it"]]
    for kind in SETS:
        trials = [set_trial(seed, kind) for seed in range(populations)]
        inside, sizes = (np.concatenate(each) for each in zip(*trials, strict=True))
        rows.append([kind, f"{inside.mean():.3f}", f"{sizes.mean():.2f}"])
    return (
        f"{populations} populations of each kind, sets at "
        f"{concept_sets.CONFIDENCE:.0%}\n\n{aligned(rows)}\n"
    )


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
