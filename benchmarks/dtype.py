"""How many units change their concept with bfloat16 instead of float32?

    python -m benchmarks.dtype --config=configs/efficientnet_lite0.py \\
        --config.model.weights=DIR --config.data.path=FOLDER

Runs the config twice, with the network in either type, and compares layer by layer.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from jdissect.dissection import settings
from jdissect.jobs import dissect
from jdissect.results.load_layer import load
from jdissect.runtime import command_line


def compare(first, second) -> dict[str, float]:
    """Figures of two results of the same layer."""
    fire = (first.best_concept >= 0) & (second.best_concept >= 0)
    changed = first.best_concept != second.best_concept
    detector = first.detectors(0.04)
    scale = np.maximum(np.abs(first.thresholds), 1e-6)
    return {
        "units": len(changed),
        "units that change their concept": int(changed.sum()),
        "of these, detectors at 0.04": int((changed & detector).sum()),
        "median |difference| of IoU": float(
            np.median(np.abs(first.best_iou - second.best_iou)[fire])
        ),
        "median relative difference of T_k": float(
            np.median(np.abs(first.thresholds - second.thresholds) / scale)
        ),
    }


def main(argv) -> int:
    """Prints the comparison."""
    values = command_line.define(argv, {}, {})
    config = command_line.parse(values, argv)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in settings.DTYPES:
            config.dtype = dtype
            dissect.dissect(config, str(Path(folder) / dtype))
        for layer in config.model.layers:
            first, second = (load(Path(folder) / d / layer) for d in settings.DTYPES)
            print(f"\n{config.model.name} {layer}: {' against '.join(settings.DTYPES)}")
            for name, value in compare(first, second).items():
                print(f"  {name:36s} {value:.4g}")
            for threshold in first.iou_thresholds:
                counts = [
                    r.unique_concepts(threshold)["total"] for r in (first, second)
                ]
                units = [r.detector_units(threshold)["total"] for r in (first, second)]
                print(
                    f"  at {threshold:g}: unique concepts {counts[0]} and {counts[1]}, "
                    f"detector units {units[0]} and {units[1]}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
