"""Several networks beside each other, on a terminal."""

from collections.abc import Mapping

from jdissect.report.table import aligned
from jdissect.results import Result


def study_table(
    results: Mapping[str, Result], errors: Mapping[str, float | None]
) -> str:
    """Unique concepts by category at each IoU threshold, a line a network.

    Args:
      results: by the network's name, of the same concepts and thresholds.
      errors: top-1 error in percent; None where it is not known.
    """
    first = next(iter(results.values()))
    rows = [["IoU >", "network", *first.unique_concepts(0.0), "top-1 error"]]
    for threshold in first.iou_thresholds:
        for number, (name, result) in enumerate(results.items()):
            error = errors.get(name)
            rows.append(
                [
                    "" if number else f"{threshold:g}",
                    name,
                    *result.unique_concepts(threshold).values(),
                    "-" if error is None else f"{error:.2f} %",
                ]
            )
    return aligned(rows)
