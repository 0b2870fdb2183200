"""Scores units by more than IoU: python -m jdissect.scores RUN [RUN ...]

Writes scores.csv, every score of each unit with its concept, into the folders of the
layers, and scores.npz with those that need activations. For these the images are read
again, with the run's network and label maps; --nofeatures leaves them out.
"""

import sys
import time
from collections.abc import Callable, Sequence

_USAGE = "jdissect.scores RUN [RUN ...] [--layers=LAYER,...] [FLAG ...]"
_OPTIONS = {
    "layers": ([], "Layers to score; by default all of each run."),
    "features": (True, "Also compute the scores that need activations."),
}
_SHOWN = ("iou", "ceiling", "f1", "precision", "recall", "mcc")
_MEASURED = ("pearson", "cosine", "auroc", "average_precision", "best_iou")


def main(argv: Sequence[str], tell: Callable[[str], object] = print) -> int:
    """Parses the command line and scores; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.base.errors import UserError
    from jdissect.jobs import replay
    from jdissect.runtime import plain_flags

    flags, folders, _ = plain_flags.parse(argv, _USAGE, {**_OPTIONS, **replay.FLAGS})
    if not folders:
        raise UserError(f"give one or more run directories: python -m {_USAGE}")
    from jdissect.results.finished_run import open_run

    # All runs are opened first, so that a wrong name is reported at once.
    runs = [open_run(folder) for folder in folders]
    layers = [_layers(run, flags.layers) for run in runs]
    places = {name: getattr(flags, name) for name in replay.FLAGS}
    for run, names in zip(runs, layers, strict=True):
        start = time.perf_counter()
        _score(run, names, places if flags.features else None, tell)
        tell(f"\nwritten to {run.path}, {time.perf_counter() - start:.1f} s")
        tell(plain_flags.show_hint(run.path))
    return 0


def _layers(run, wanted: Sequence[str]) -> tuple[str, ...]:
    for layer in wanted:
        run.result(layer)  # refuses one that does not exist
    return tuple(dict.fromkeys(wanted)) or run.layers


def _score(run, layers: Sequence[str], places: dict[str, str] | None, tell) -> None:
    """Scores a run's layers, writes their files and tells what stands out."""
    from jdissect.scoring import measured, table

    found = {}
    if places is not None:
        from jdissect.jobs import scores

        found = scores.measure(run, layers, places)
    for number, layer in enumerate(layers):
        folder, result = run.folder / layer, run.result(layer)
        own = found.get(layer) or measured.read(folder)
        if layer in found:
            measured.write(folder, found[layer])
        table.write(folder, result, own)
        tell("\n" * (number > 0) + _shown(layer, result, own))


def _shown(layer: str, result, own) -> str:
    """Returns the scores of the units of highest IoU as text."""
    import numpy as np

    from jdissect.base.printable import printable
    from jdissect.report.tables.layer import BEST_UNITS, aligned

    scores = result.scores()
    lines = [f"{printable(layer)}: {len(result.thresholds)} units, scores of the best"]
    names = [name for name in _SHOWN if name in scores.values]
    rows = [["unit", "concept", *names, *(_MEASURED if own else ())]]
    pairs = list(scores.pairs())
    for unit in np.argsort(-result.best_iou, kind="stable")[:BEST_UNITS]:
        name, concept, _, values = pairs[unit]
        if concept is None:
            continue
        if own:
            values |= own.of_pair(int(unit), int(scores.column[unit]))
        numbers = [f"{values[n]:.3f}" if n in values else "-" for n in rows[0][2:]]
        rows.append([name, concept, *numbers])
    lines += ["", aligned(rows)] if len(rows) > 1 else ["", "no unit has a concept"]
    for name, reason in scores.missing.items():
        lines.append(f"no {name}: {reason}")
    if own:
        lines += [
            "",
            f"{len(own.unit):,} pairs ranked; bounds of AUROC, average precision and "
            f"best IoU are at most {own.width:.1e} apart",
            f"Pearson and cosine: fixed point changes at most {own.error:.1e}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
