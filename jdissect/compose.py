"""Finds formulas over concepts for units: python -m jdissect.compose RUN [RUN ...]

A formula joins concepts by OR, AND and AND NOT: "water AND NOT blue". Writes
formulas.csv and formulas.json beside each layer's result. See docs/formulas.md.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

_USAGE = "jdissect.compose RUN [RUN ...] [FLAG ...]"
_BEST = 10  # formulas that are printed
_OPTIONS = {
    "length": (3, "Most concepts in a formula."),
    "method": (
        ("beam", "optimum"),
        "How formulas are searched: as in compositional explanations, or the best of "
        "all, for lengths up to 3.",
    ),
    "beam": (5, "Number of formulas in the beam."),
    "penalty": (1.0, "Factor on the IoU for each concept after the first one."),
    "operators": (["or", "and", "and_not"], "What joins concepts."),
    "layers": ([], "Layers; by default all of each run."),
}


def main(argv: Sequence[str], tell: Callable[[str], object] = print) -> int:
    """Parses the command line and searches; returns the exit code."""
    # Imported here so that --help of all commands needs no JAX.
    from jdissect.base.errors import UserError
    from jdissect.jobs.replay import FLAGS
    from jdissect.runtime import plain_flags

    options = {**_OPTIONS, **FLAGS}
    flags, folders, _ = plain_flags.parse(argv, _USAGE, options)
    if not folders:
        raise UserError(f"give one or more run directories: python -m {_USAGE}")
    from jdissect.formulas import search
    from jdissect.formulas.stored import Settings

    settings = Settings(
        flags.length, flags.method, flags.beam, flags.penalty, tuple(flags.operators)
    )
    search.check(settings)
    from jdissect.jobs import compose as job
    from jdissect.report.tables.formulas import formulas_report

    places: dict[str, Any] = {name: flags[name].value for name in FLAGS}
    for folder in folders:
        for layer, found, seconds in job.compose(
            folder, settings, flags.layers, **places
        ):
            tell(f"{layer}, {formulas_report(found, _BEST)}")
            tell(f"\nwritten to {folder}, {seconds:.1f} s\n")
        tell(plain_flags.show_hint(folder))
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
