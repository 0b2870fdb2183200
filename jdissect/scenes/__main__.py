"""Scenes on disk: python -m jdissect.scenes --export DIR, or --prepare DIR"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and exports; returns the exit code."""
    from jdissect.base.paths import local
    from jdissect.runtime import preemption
    from jdissect.scenes.export import export
    from jdissect.scenes.prepared import prepare
    from jdissect.scenes.source import open_scenes
    from jdissect.scenes.splits import SPLITS

    parser = argparse.ArgumentParser(
        prog="python -m jdissect.scenes",
        description="Writes pictures and masks of the world 'scenes'.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--export", metavar="DIR", help="as a Broden folder")
    what.add_argument(
        "--prepare",
        metavar="DIR",
        help="as arrays, for training (config.data.path); goes on where it was cut off",
    )
    parser.add_argument(
        "--split", default="probe", help=f"one of {', '.join(SPLITS)} (%(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=0, help="the first so many images; 0: the split's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the world (0)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an export that is there"
    )
    options = parser.parse_args(argv[1:])
    if options.prepare:
        folder = local(options.prepare, "--prepare")
        try:
            prepare(folder, options.split, options.count, seed=options.seed)
        except BaseException as error:
            preemption.note(error)
            raise
        print(f"split {options.split} is in {options.prepare}")
        return 0
    source = open_scenes(options.split, options.count, options.seed)
    export(source, local(options.export, "--export"), options.overwrite)
    print(f"{source.num_images} images written to {options.export}")
    return 0


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
