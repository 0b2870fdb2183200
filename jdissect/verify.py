"""Checks the labels of units by counterfactuals: python -m jdissect.verify RUN

A run on scenes is checked on pictures with and without each unit's concept, other runs
on images that did not choose the label. Writes LAYER/verified.csv and verified.json
into the run. See `verification`.
"""

import sys
import time
from collections.abc import Callable, Sequence

_OPTIONS = {
    "layers": ([], "Layers to verify; by default all."),
    "all_units": (False, "Also verify units whose IoU is below all thresholds."),
    "pairs": (30, "Pairs of pictures for each concept, for a run on scenes."),
}


def main(argv: Sequence[str], tell: Callable[[str], object] = print) -> int:
    """Parses the command line and verifies; returns the exit code."""
    from jdissect.base.errors import UserError
    from jdissect.jobs.replay import FLAGS
    from jdissect.runtime import plain_flags

    usage = "jdissect.verify RUN [RUN ...] [FLAG ...]"
    flags, folders, _ = plain_flags.parse(argv, usage, {**_OPTIONS, **FLAGS})
    if not folders:
        raise UserError(f"give one or more run directories: python -m {usage}")
    from jdissect.results.finished_run import open_run
    from jdissect.verification.run import verify

    # All runs are opened first, so that a wrong name is reported at once.
    for run in [open_run(folder) for folder in folders]:
        start = time.perf_counter()
        found = verify(
            run,
            flags.layers,
            all_units=flags.all_units,
            pairs=flags.pairs,
            **{name: flags[name].value for name in FLAGS},
        )
        for layer, verified in found.items():
            _write(run, layer, verified, tell)
        tell(f"{time.perf_counter() - start:.1f} s")
        tell(plain_flags.show_hint(run.path))
    return 0


def _write(run, layer: str, verified, tell) -> None:
    """Writes what was found of a layer into the run, and tells it."""
    from jdissect.base.atomic_files import write_whole
    from jdissect.report.tables.layer import aligned
    from jdissect.verification import table
    from jdissect.verification.verified import PICTURE, TABLE

    verified.write(run.folder / layer)
    picture = run.folder / layer / PICTURE
    if verified.examples:
        write_whole(picture, _picture(run.result(layer), verified))
    tell(table.heading(run.name, verified))
    tell(f"\n{aligned(table.shares(verified))}\n")
    tell(f"{aligned(table.concepts(verified))}\n")
    for line in table.notes(verified):
        tell(f"{line}\n")
    tell(f"written to {run.folder / layer / TABLE}")
    if verified.examples:
        tell(f"pairs of pictures: {picture}")


def _picture(result, verified) -> bytes:
    """Returns a PNG of the examples, with the pixels where units fire outlined."""
    from jdissect.report.figures import detector_pictures, drawing

    blocks: dict[str, list[detector_pictures.Strip]] = {}
    for one in verified.examples:
        title = "highest AUC" if one.best else "lowest AUC"
        detector = detector_pictures.of_unit(result, int(verified.unit[one.row]))
        strip = detector_pictures.Strip(detector, list(one.pixels), list(one.fires))
        blocks.setdefault(title, []).append(strip)
    text = f"{verified.layer}: with and without the concept"
    return drawing.png(detector_pictures.draw(blocks, text))


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
