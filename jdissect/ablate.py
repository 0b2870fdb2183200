"""Zeroes units: python -m jdissect.ablate --config=configs/mixup.py --units=top:20

What the network's top-1 accuracy loses without them, overall and by class; which units
matter for which class; and whether interpretable units matter more than others.
"""

import sys
from collections.abc import Sequence

_FLAGS = {
    "units": "detectors:IOU, top:COUNT (of highest IoU) or numbers such as 3,14,15.",
    "run": "Run directory of the network's dissection; default runs/NAME[-VARIANT].",
    "layer": "The units' layer; by default the last one that the run has.",
    "output": "Folder for ablation.json and tables; '' for none.",
    "seed": "Of random draws; default 0.",
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and measures; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli
    from jdissect.errors import UserError

    flags = cli.define(argv, _FLAGS, {})
    config = cli.parse(flags, argv)
    if not flags.units:
        raise UserError(f"--units is not set; {_FLAGS['units']}")
    seed = flags.seed or "0"
    if not seed.isdecimal():
        raise UserError(f"--seed is '{seed}', no number")
    from jdissect.ablation import ablate

    folder = flags.run or f"runs/{cli.run_name(flags)}"
    ablate(config, folder, flags.layer, flags.units, flags.output, int(seed))
    return 0


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
