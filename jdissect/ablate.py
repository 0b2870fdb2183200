"""Zeroes units of a network: python -m jdissect.ablate --config=configs/mixup.py \
    --units=detectors:0.04

Reports the remaining top-1 accuracy, overall and by class; which units each class needs
most; and whether interpretable units matter more than as many others. See `ablation`.
"""

import sys
from collections.abc import Sequence

_FLAGS = {
    "units": "detectors:IOU, top:COUNT (of highest IoU), or names such as 3,14,15.",
    "run": "Run directory of this network's dissection; default runs/NAME[-VARIANT].",
    "layer": "Layer of the units; default the run's last.",
    "output": "Folder for ablation.json and CSV tables.",
    "seed": "Seed of all random choices; default 0.",
    "draws": "Number of random choices of units; default 200, or 10 if each is a pass.",
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and ablates; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.ablation import unit_selection
    from jdissect.base.errors import UserError
    from jdissect.runtime import command_line

    flags = command_line.define(argv, _FLAGS, {})
    config = command_line.parse(flags, argv)
    if not flags.units:
        raise UserError(f"--units is not set; use {unit_selection.FORMS}")
    choice = unit_selection.parse(flags.units)
    numbers = {}
    for name, least, most, default in (
        ("seed", 0, 2**32 - 1, "0"),
        ("draws", 1, 10**6, ""),
    ):
        text = flags[name].value or default
        if text and (not text.isdecimal() or not least <= float(text) <= most):
            raise UserError(
                f"--{name} is '{text:.40}'; it must be a number from {least} to {most}"
            )
        numbers[name] = int(text) if text else None
    from jdissect.ablation import run as ablation
    from jdissect.report.tables import ablation as report

    output = report.check_output(flags.output)
    run = ablation.open_dissection(
        flags.run, f"runs/{command_line.run_name(flags)}", choice, flags.layer
    )
    found = ablation.ablate(config, run, choice, layer=flags.layer, **numbers)
    print(report.text(found))
    if output is not None:
        report.write(found, output)
        print(f"\nwritten to {flags.output}")
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
