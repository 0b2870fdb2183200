"""Draws the study's figures of photographs:

    python -m jdissect.figures augmentations --images=PHOTOS --output=figures
    python -m jdissect.figures detectors runs/mixup --output=figures

`augmentations` is Figure 1: the five recipes applied to photographs (without --images,
to the scenes). `detectors` is Figure 2: a finished run's best units with their top
images, darkened where the units do not fire. Both write an SVG and a PNG.
"""

import sys
from collections.abc import Callable, Mapping, Sequence


def main(argv: Sequence[str]) -> int:
    """Parses the command line and draws; returns the exit code."""
    from jdissect.base.errors import UserError

    name = argv[1] if len(argv) > 1 else ""
    if name in ("--help", "-help"):
        print(__doc__.strip())
        print("\nEach figure has its own --help.")
        return 0
    if name not in _COMMANDS:
        said = f"unknown figure '{name}'" if name else "no figure given"
        raise UserError(f"{said}; there are: {', '.join(_COMMANDS)}")
    return _COMMANDS[name]([f"figures {name}", *argv[2:]])


_OUTPUT = ("", "Folder to write to; a figure of the same name is replaced.")


def _parse(argv: Sequence[str], usage: str, options: Mapping, limits: Mapping):
    """Returns (flags, other arguments, output folder).

    Args:
      argv, usage, options: see `plain_flags.parse`; --output is added.
      limits: {flag: (smallest, largest)} for numeric flags.
    """
    from jdissect.base import paths
    from jdissect.base.errors import UserError
    from jdissect.runtime import plain_flags

    options = {**options, "output": _OUTPUT}
    flags, rest, _ = plain_flags.parse(argv, f"jdissect.figures {usage}", options)
    for name, (least, most) in limits.items():
        value = flags[name].value
        if not least <= value <= most:
            raise UserError(f"--{name} is {value}; it must be in {least} .. {most}")
    if not flags.output:
        raise UserError("--output=DIR is required: the folder for the figure")
    folder = paths.from_user(flags.output)
    above = () if paths.is_remote(folder) else folder.absolute().parents
    for path in (folder, *above):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; give another --output")
    return flags, rest, folder


def _augmentations(argv: Sequence[str]) -> int:
    from jdissect.base.errors import UserError

    flags, rest, folder = _parse(
        argv,
        "augmentations --output=DIR [FLAG ...]",
        {
            "images": ("", "Folder of photographs, or files A,B; default: the scenes."),
            "recipes": ([], "Recipes, one per column; default: all, 'none' first."),
            "count": (4, "Number of images, the first of the folder or scenes."),
            "seed": (0, "Seed of partners, lambda and boxes."),
            "size": (0, "Side of the pictures; 0 is 224, for scenes 112."),
            "exif_rotation": (False, "Rotate photographs by their EXIF orientation."),
        },
        {"count": (1, 100), "seed": (0, 2**31 - 1), "size": (0, 4096)},
    )
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect import augment
    from jdissect.base.printable import printable
    from jdissect.report.figures import mixed_pictures
    from jdissect.report.figures.inputs import photographs

    recipes = list(dict.fromkeys(flags.recipes)) or list(augment.RECIPES)
    if unknown := [name for name in recipes if name not in augment.RECIPES]:
        known = ", ".join(augment.RECIPES)
        raise UserError(f"--recipes: unknown recipe '{unknown[0]}'; known: {known}")
    names, pixels = photographs(
        flags.images, flags.count, flags.size, flags.exif_rotation
    )
    if len(pixels) < 2 and set(recipes) - set(mixed_pictures.ALONE):
        raise UserError("one image cannot be mixed; give two or more")
    figure = mixed_pictures.draw(pixels, recipes, flags.seed)
    for number, name in enumerate(names):
        print(f"{mixed_pictures.letter(number)}: {printable(name)}")
    _write(figure, folder, "augmentations")
    return 0


def _detectors(argv: Sequence[str]) -> int:
    from jdissect.base.errors import UserError
    from jdissect.runtime import plain_flags

    usage = "detectors RUN --output=DIR [FLAG ...]"
    options = {
        "layer": ("", "Layer of the run; default: its last."),
        "per_category": (3, "Detectors per category."),
        "data_path": plain_flags.DATA_PATH,
    }
    flags, rest, folder = _parse(argv, usage, options, {"per_category": (1, 100)})
    if len(rest) != 1:
        raise UserError(f"give one run directory: {usage}")
    from jdissect.base.printable import printable
    from jdissect.report.figures import detector_pictures
    from jdissect.report.figures.inputs import strips
    from jdissect.results import finished_run

    run = finished_run.open_run(rest[0])
    layer = flags.layer or run.layers[-1]
    result = run.result(layer)
    if result.top_map is None or result.mask_shape is None:
        raise UserError(
            f"{run.folder} was dissected by an older version; run again with "
            "--overwrite"
        )
    best = detector_pictures.best_detectors(result, flags.per_category)
    if not best:
        least = detector_pictures.DETECTOR
        raise UserError(f"no unit of {run.folder / layer} has an IoU above {least}")
    blocks = strips(run, result, best, flags.data_path)
    title = f"{run.name} · {result.model}, {layer} · {result.images} images"
    figure = detector_pictures.draw(blocks, title)
    for category, detectors in best.items():
        for detector in detectors:
            print(f"{printable(category)}: {printable(detector.title)}")
    _write(figure, folder, f"detectors-{layer}")
    return 0


def _write(figure, folder, name: str) -> None:
    from jdissect.report.figures import drawing

    files = drawing.write(figure, folder, name)
    print("written: " + ", ".join(str(file) for file in files))


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "augmentations": _augmentations,
    "detectors": _detectors,
}


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
