"""What do a segmenter's mistakes do to a dissection?

    python -m jdissect.study
    python -m jdissect.study --workdir=runs/truth --config.segmenter.name=annotations
    python -m benchmarks.ground_truth --segmenter=runs/study --truth=runs/truth

Of drawn scenes the true label maps are known. For each network: unique concepts and
detectors at each threshold with either labels, Spearman's correlation of the units'
IoU, the share of the units that have the same concept with both (of all, and of those
that are detectors with the true labels), and the median of the ratio of their IoUs.
Then the concepts that only one of them finds.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.support.options import parse
from jdissect.report.tables.layer import aligned
from jdissect.results.layer_result import Result
from jdissect.results.load_layer import load
from jdissect.runtime import command_line
from jdissect.study import NAMES

OPTIONS = {
    "segmenter": ("runs/study", "Of the segmenter."),
    "truth": ("runs/truth", "Of the annotations."),
    "layer": ("layer4", "Of the networks."),
    "threshold": (0.04, "Of detectors."),
}


def identities(result: Result) -> np.ndarray:
    """Each unit's concept as 'name (category)'; '' without one."""
    pairs = zip(result.concepts, result.categories, strict=True)
    names = [f"{name} ({category})" for name, category in pairs]
    return np.array([*names, ""])[result.best_concept]


def found(result: Result, threshold: float) -> set[str]:
    """Concepts of the detectors."""
    return set(identities(result)[result.detectors(threshold)].tolist())


def main(argv: list[str]) -> int:
    """Compares and prints."""
    options = parse(argv, "ground_truth", OPTIONS)
    pairs = {
        name: [
            load(Path(folder) / name / options.layer)
            for folder in (options.segmenter, options.truth)
        ]
        for name in NAMES
    }
    first = pairs[NAMES[0]][0]
    rows = [["network", "labels", *first.unique_concepts(0), "detectors"]]
    for name, pair in pairs.items():
        for label, result in zip(("segmenter", "truth"), pair, strict=True):
            counts = result.unique_concepts(options.threshold).values()
            units = int(result.detectors(options.threshold).sum())
            rows.append([name, label, *counts, units])
    print(f"Unique concepts, IoU > {options.threshold:g}\n\n{aligned(rows)}\n")
    rows = [
        ["network", "rank correlation", "same concept", "of detectors", "IoU ratio"]
    ]
    for name, (segmenter, truth) in pairs.items():
        same = identities(segmenter) == identities(truth)
        detectors = truth.detectors(options.threshold)
        ratio = segmenter.best_iou[detectors] / truth.best_iou[detectors]
        rows.append(
            [
                name,
                f"{spearmanr(segmenter.best_iou, truth.best_iou).statistic:.3f}",
                f"{100 * same.mean():.1f} %",
                f"{100 * same[detectors].mean():.1f} %",
                f"{np.median(ratio):.2f}",
            ]
        )
    print(aligned(rows))
    for title, (one, other) in (
        ("only with the segmenter", (0, 1)),
        ("only with the truth", (1, 0)),
    ):
        print(f"\nConcepts found {title}")
        for name, pair in pairs.items():
            lost = found(pair[one], options.threshold) - found(
                pair[other], options.threshold
            )
            print(f"  {name}: {', '.join(sorted(lost)) or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
