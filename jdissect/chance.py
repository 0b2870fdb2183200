"""Compares a run's best IoUs with chance: python -m jdissect.chance RUN [RUN ...]

Every permutation compares the masks of each image with the label map of another one.
Gives each unit's p-value and q-value, the number of detectors and unique concepts that
chance alone gives at each IoU threshold, and for each unit the concepts that cannot be
told from its best one. Writes chance.csv, chance.json and chance.npz beside units.csv.
"""

import sys
import time
from collections.abc import Callable, Sequence

_USAGE = "jdissect.chance RUN [RUN ...] [--permutations=100] [FLAG ...]"
_MOST_SEED = 2**63 - 1
_OPTIONS = {
    "permutations": (100, "Number of permutations; at least 1 / alpha."),
    "seed": (0, "Seed of the permutations."),
    "alpha": (0.05, "False discovery rate at which units are counted."),
    "layers": ([], "Layers to compare; by default all."),
}


def main(argv: Sequence[str], tell: Callable[[str], object] = print) -> int:
    """Parses the command line and compares; returns the exit code."""
    from jdissect.base.errors import UserError
    from jdissect.jobs.replay import FLAGS, open_replay
    from jdissect.runtime import plain_flags

    flags, folders, _ = plain_flags.parse(argv, _USAGE, {**_OPTIONS, **FLAGS})
    if not folders:
        raise UserError(f"give one or more run directories: python -m {_USAGE}")
    if not 0 <= flags.seed <= _MOST_SEED:
        raise UserError(f"--seed is {flags.seed}; it must be 0 .. {_MOST_SEED}")
    from jdissect.base.progress import Progress
    from jdissect.chance_level import layer as chance_level
    from jdissect.chance_level import stored
    from jdissect.results.finished_run import open_run

    chance_level.check(flags.permutations, flags.alpha)
    # All runs are opened first, so that a wrong name is reported at once.
    runs = [open_run(folder) for folder in folders]
    wanted = {run: tuple(flags.layers) or run.layers for run in runs}
    for run, layers in wanted.items():
        for layer in layers:
            chance_level.check_result(run.result(layer), str(run.folder / layer))
    places = {name: str(flags[name].value) for name in FLAGS}
    for run, layers in wanted.items():
        for layer in layers:
            start = time.perf_counter()
            result = run.result(layer)
            with Progress() as progress:
                images = open_replay(run, progress, **places).images(layer)
                found = chance_level.measure(
                    result, images, flags.permutations, flags.seed, progress
                )
            folder = run.folder / layer
            stored.write(folder, found, result)
            tell(text(found, result, flags.alpha))
            seconds = time.perf_counter() - start
            tell(f"\nwritten to {folder}, {seconds:.1f} s")
        tell(plain_flags.show_hint(run.folder))
    return 0


def text(found, result, alpha: float) -> str:
    """Returns the counts beside those by chance, for a terminal."""
    from jdissect.chance_level.layer import Chance
    from jdissect.report.tables.layer import aligned

    assert isinstance(found, Chance)
    rows = [["IoU >", "detectors", "by chance", "unique concepts", "by chance"]]
    for threshold in result.iou_thresholds:
        units = found.detectors(threshold)
        concepts = found.unique_concepts(threshold, result.categories)["total"]
        rows.append(
            [
                f"{threshold:g}",
                str(int(result.detectors(threshold).sum())),
                f"{units.mean:.1f} (95 %: {units.high})",
                str(result.unique_concepts(threshold)["total"]),
                f"{concepts.mean:.1f} (95 %: {concepts.high})",
            ]
        )
    total = len(result.thresholds)
    sizes = found.sets.sizes[found.sets.sizes > 0]
    lines = [
        f"{result.layer}: {total} units, {result.images} images, "
        f"{found.permutations} permutations",
        "",
        aligned(rows),
        "",
        f"{int(found.found(alpha).sum())} of {total} units are above chance at a false "
        f"discovery rate of {alpha:g}.",
        f"By chance, 5 % of the units have an IoU above {found.level():.3f}.",
    ]
    if len(sizes):
        lines.append(
            f"One concept is clearly the best for {int((sizes == 1).sum())} of "
            f"{len(sizes)} units; the others have up to {int(sizes.max())} that cannot "
            "be told apart."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
