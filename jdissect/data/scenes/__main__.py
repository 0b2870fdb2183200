"""Scenes on disk: python -m jdissect.data.scenes --export DIR, or --prepare DIR"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and exports; returns the exit code."""
    from jdissect.data.scenes.export import export
    from jdissect.data.scenes.prepared import prepare
    from jdissect.data.scenes.source import open_scenes
    from jdissect.data.scenes.splits import SPLITS
    from jdissect.errors import UserError
    from jdissect.paths import local

    parser = argparse.ArgumentParser(
        prog="python -m jdissect.data.scenes",
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
    options = parser.parse_args(argv)
    try:
        if options.prepare:
            folder = local(options.prepare, "--prepare")
            prepare(folder, options.split, options.count, seed=options.seed)
            print(f"split {options.split} is in {options.prepare}")
            return 0
        source = open_scenes(options.split, options.count, options.seed)
        export(source, local(options.export, "--export"), options.overwrite)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"{source.num_images} images written to {options.export}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
