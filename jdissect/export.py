"""Exports runs for other programs: python -m jdissect.export RUN [RUN ...] --output=DIR

- `descriptions.csv`, in CLIP-Dissect's format: layer, unit, description, similarity.
  The description is the unit's concept, the similarity its IoU; --describe=formula
  takes the formulas of `jdissect.compose` and theirs.
- `report.json`, one per layer, in netdissect 2017's format: {"header": {"name",
  "image"}, "units": [{"unit", "iou", "label", "cat", "image"}]}, by IoU descending.
  Images are small JPEGs of each unit's top image beside it, if they can be read.
- `units.parquet`, a long table of all pairs of a unit and a concept with an IoU above
  --cutoff and their scores, for pandas.read_parquet and others; `findings.parquet`,
  one row per unit: its formula, p-value, concepts that may as well be the best, and
  whether its label is verified, for runs in which other commands found them.
- `scores.csv`, one per layer: unit, concept, category, score, value, for each unit with
  its concept.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jdissect.report.export import FORMATS, check_formulas, write

_OPTIONS = {
    "output": ("", "Folder to write to."),
    "formats": (list(FORMATS), "Any of descriptions, report, parquet, scores."),
    "describe": (("concept", "formula"), "What descriptions.csv gives of a unit."),
    "layers": ([], "Layers to export; by default all of each run."),
    "cutoff": (0.01, "IoU above which pairs go into the Parquet table."),
    "images": (True, "Write the units' top images beside report.json."),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and exports; returns the exit code."""
    from jdissect.base import paths
    from jdissect.base.errors import UserError
    from jdissect.report import findings
    from jdissect.results.finished_run import open_run
    from jdissect.runtime import plain_flags

    usage = "jdissect.export RUN [RUN ...] --output=DIR [FLAG ...]"
    options = {**_OPTIONS, "data_path": plain_flags.DATA_PATH}
    flags, folders, _ = plain_flags.parse(argv, usage, options)
    if not folders:
        raise UserError(f"give one or more run directories: python -m {usage}")
    if not flags.output:
        raise UserError("--output is not set; give a folder")
    output = paths.from_user(flags.output)
    if Path(flags.output).is_file():
        raise UserError(f"{output} is a file; give another --output")
    if unknown := [name for name in flags.formats if name not in FORMATS]:
        raise UserError(f"--formats has '{unknown[0]}'; use {', '.join(FORMATS)}")
    if not 0 <= flags.cutoff < 1:
        raise UserError(f"--cutoff is {flags.cutoff}; give a number in [0, 1)")
    found = [open_run(folder) for folder in folders]
    names = [run.name for run in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs are both named '{twice[0]}'; export them separately")
    # Everything is read before anything is written.
    results = {
        run.name: {layer: run.result(layer) for layer in (flags.layers or run.layers)}
        for run in found
    }
    known = {
        run.name: {layer: findings.read(run, layer) for layer in results[run.name]}
        for run in found
    }
    for run in found if flags.describe == "formula" else ():
        check_formulas(run, known[run.name])
    for run in found:
        folder = output / run.name if len(found) > 1 else output
        paths.make_folder(folder)
        for text in write(
            run,
            results[run.name],
            known[run.name],
            folder,
            formats=flags.formats,
            describe=flags.describe,
            cutoff=flags.cutoff,
            images=flags.images,
            data_path=flags.data_path,
        ):
            print(text)
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
