"""Which scores fall if a concept's labels are missing, or wrong ones are added?

    python -m benchmarks.score_checks [--save]

The two sanity tests of Oikarinen et al., "Evaluating Neuron Explanations: A Unified
Framework with Sanity Checks" (ICML 2025, section 4), for the scores of this package.
*Missing labels*: each pixel of the concept loses its label with probability 1/2. *Extra
labels*: pixels beside the concept get its label at random, as many as it has. A score
passes if it falls in both tests, by more than 0.001 of its range, for nearly all units.

*Perfect* units, as in the paper, are 1 on their concept and 0 elsewhere. A *planted*
unit's activation is Gaussian noise, and higher by 1 to 4 standard deviations on most of
its concept's pixels. Concepts cover 0.1 to 30 % of the pixels; a planted unit fires on
as many pixels as its concept has, or on the 1 % of highest activations, as in a
dissection.
The scores are computed by the package's own functions.
"""

import sys
from typing import NamedTuple

import numpy as np

from benchmarks.support import record
from benchmarks.support.options import parse
from jdissect.ops import float_keys
from jdissect.report.tables.layer import aligned
from jdissect.runtime import command_line
from jdissect.scoring import from_counts, ranking

SHARES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
EPSILON = 1e-3
ENOUGH = 0.95  # of the units
# Width of a score's range; others are in [0, 1]. PMI and mutual information have none:
# the largest difference of two values seen is taken, as in the paper's code.
_WIDTH = {"mcc": 2.0, "pearson": 2.0, "cosine": 2.0}
_OPEN = ("pmi", "mutual_information")
_BY_IMAGE = ("sample_coverage", "explanation_coverage")


class Kind(NamedTuple):
    """What units there are: their name, and on what share of the pixels they fire."""

    name: str
    perfect: bool = False
    fires: float | None = None  # None: on as many pixels as the concept has


KINDS = (
    Kind("Perfect units", perfect=True),
    Kind("Planted units that fire on as many pixels as the concept has"),
    Kind("Planted units that fire on 1 % of the pixels", fires=0.01),
)

OPTIONS = {
    "units": (10, "Planted units for each share of pixels."),
    "pixels": (100_000, "Pixels, of all images together."),
    "save": (False, "Write results/score_checks.md."),
}


def unit(rng, pixels: int, share: float, perfect: bool):
    """(activation float32[pixel], concept bool[pixel]) of a unit."""
    concept = rng.permutation(pixels) < max(round(share * pixels), 2)
    if perfect:
        return concept.astype(np.float32), concept
    found = concept & (rng.random(pixels) < rng.uniform(0.6, 1))
    activation = rng.normal(size=pixels) + found * rng.uniform(1, 4)
    return activation.astype(np.float32), concept


def missing(rng, concept):
    """The concept without half of its labels."""
    return concept & (rng.random(len(concept)) < 0.5)


def extra(rng, concept):
    """The concept with as many labels elsewhere."""
    share = concept.sum() / (~concept).sum()
    return concept | (rng.random(len(concept)) < share)


def scores(activation, order, concept, fires: float) -> dict[str, float]:
    """Every score of a unit that fires on a share of the pixels."""
    count = max(round(fires * len(concept)), 1)
    fired = order[:count]
    both, area = int(concept[fired].sum()), int(concept.sum())
    counts = from_counts.Counts(
        *(np.array([n]) for n in (both, count + area - both, count, area)),
        np.array([len(concept)]),
    )
    found = {
        name: float(from_counts.score(name, counts)[0])
        for name in from_counts.NAMES
        if name not in _BY_IMAGE
    }
    mask = concept.astype(np.float64)
    found["pearson"] = float(np.corrcoef(activation, mask)[0, 1])
    length = np.linalg.norm(activation.astype(np.float64)) * np.linalg.norm(mask)
    found["cosine"] = float(activation @ mask / length)
    # A bin for every value, so that the bounds meet.
    keys = np.unique(float_keys.to_keys_host(activation))
    edges = float_keys.from_keys_host(np.unique([keys, keys + 1]))
    first = np.searchsorted(activation[order][::-1], edges)
    hits = concept[order].cumsum()[::-1]  # of the lowest first
    every = np.append(np.arange(len(concept), 0, -1), 0)[first]
    hits = np.append(hits, 0)[first]
    bounds = ranking.bound(edges, every, hits, len(concept), area)
    found["auroc"] = float(np.mean(bounds.auroc))
    found["average_precision"] = float(np.mean(bounds.ap))
    found["best_iou"] = bounds.iou[0]
    return found


def differences(rng, units: int, pixels: int, share: float, kind: Kind):
    """{score: [unit, (as it is, missing, extra)]}."""
    found: dict[str, list] = {}
    for _ in range(units):
        activation, concept = unit(rng, pixels, share, kind.perfect)
        order = np.argsort(-activation, kind="stable")
        labels = (concept, missing(rng, concept), extra(rng, concept))
        each = [scores(activation, order, some, kind.fires or share) for some in labels]
        for name in each[0]:
            found.setdefault(name, []).append([one[name] for one in each])
    return {name: np.array(values) for name, values in found.items()}


def fallen(name: str, values) -> tuple[np.ndarray, np.ndarray]:
    """(mean difference, share of units whose score falls) of both tests."""
    finite = np.where(np.isfinite(values), values, np.nan)
    width = np.nanmax(finite) - np.nanmin(finite) if name in _OPEN else 1.0
    change = (values[:, 1:] - values[:, :1]) / _WIDTH.get(name, width)
    return np.nanmean(change, axis=0), (change < -EPSILON).mean(axis=0)


def table(units: int, pixels: int, kind: Kind) -> tuple[list[list[str]], list]:
    """(rows of the table, scores that pass)."""
    by_share = {
        share: differences(np.random.default_rng([7, n]), units, pixels, share, kind)
        for n, share in enumerate(SHARES)
    }
    rows = [["score", *(f"{100 * share:g} %" for share in SHARES), "passes"]]
    passed = []
    for name in by_share[SHARES[0]]:
        cells, least = [], 1.0
        for found in by_share.values():
            _, share_of_units = fallen(name, found[name])
            least = min(least, *share_of_units)
            cells.append(" / ".join(f"{100 * s:.0f}" for s in share_of_units))
        if least >= ENOUGH:
            passed.append(name)
        rows.append([name, *cells, "yes" if least >= ENOUGH else "no"])
    return rows, passed


def main(argv) -> int:
    """Runs the tests and prints both tables; returns the exit code."""
    flags = parse(argv, "score_checks", OPTIONS)
    text = [
        "# Which scores notice wrong labels?",
        "",
        "Percent of planted units whose score falls when half of the labels are "
        "missing / when as many wrong ones are added, by the share of pixels that the "
        "concept "
        f"covers. A score passes if it falls for {100 * ENOUGH:.0f} % of the units in "
        "every column.",
    ]
    for kind in KINDS:
        rows, passed = table(flags.units, flags.pixels, kind)
        shown = f"{kind.name}\n\n{aligned(rows)}\n\npass: {', '.join(passed)}\n"
        print(shown, flush=True)
        text += ["", f"## {kind.name}", ""]
        text += [f"| {' | '.join(row)} |" for row in rows[:1]]
        text += ["|---" * len(rows[0]) + "|"]
        text += [f"| {' | '.join(row)} |" for row in rows[1:]]
    if flags.save:
        where = record.in_words(record.environment())
        text += [
            "",
            f"{flags.units} units a column, {flags.pixels:,} pixels: "
            f"`python -m benchmarks.score_checks --save` on {where}",
        ]
        path = record.RESULTS / "score_checks.md"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
