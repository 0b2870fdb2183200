"""Writes scenes to disk: python -m jdissect.scenes --export=DIR, or --prepare=DIR"""

import sys
from collections.abc import Sequence

_OPTIONS = {
    "export": ("", "Folder to write pictures and masks to, in Broden's layout."),
    "prepare": (
        "",
        "Folder to write arrays to, for training (config.data.path); the same command "
        "resumes.",
    ),
    "split": ("probe", "Split of the world: train, validation or probe."),
    "count": (0, "Number of images, from the first; 0: all of the split."),
    "seed": (0, "Seed of the world."),
    "overwrite": (False, "Replace an existing export."),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and writes; returns the exit code."""
    from jdissect.base.errors import UserError
    from jdissect.base.paths import local
    from jdissect.runtime import plain_flags, preemption

    usage = "jdissect.scenes --export=DIR | --prepare=DIR [FLAG ...]"
    options, rest, _ = plain_flags.parse(argv, usage, _OPTIONS)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    if bool(options.export) == bool(options.prepare):
        raise UserError("give either --export=DIR or --prepare=DIR; see --help")
    # Imported here so that a bad flag is reported at once.
    from jdissect.scenes.export import export
    from jdissect.scenes.prepared import prepare
    from jdissect.scenes.source import open_scenes

    if options.prepare:
        folder = local(options.prepare, "--prepare")
        try:
            prepare(folder, options.split, options.count, seed=options.seed)
        except BaseException as error:
            preemption.add_hint(error)
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
