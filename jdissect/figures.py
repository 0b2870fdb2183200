"""Draws the study's figures of photographs:

    python -m jdissect.figures augmentations --images=PHOTOS --output=figures
    python -m jdissect.figures detectors runs/mixup --output=figures

`augmentations` is Figure 1: what the five recipes make of photographs (without --images
of the scenes). `detectors` is Figure 2: a finished run's best units with the images
they fire at most, dark where they do not fire. Both write an SVG and a PNG.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdissect.report.figures.detector_pictures import Detector, Strip
    from jdissect.results.finished_run import StoredRun

PICTURES = 5  # images a unit, at most


def main(argv: Sequence[str]) -> int:
    """Parses the command line and draws; returns the exit code."""
    from jdissect.base.errors import UserError

    name = argv[1] if len(argv) > 1 else ""
    if name in ("--help", "-help"):
        print(__doc__.strip())
        print("\nEach has its own --help.")
        return 0
    if name not in _COMMANDS:
        said = f"unknown figure '{name}'" if name else "say which figure"
        raise UserError(f"{said}; there are: {', '.join(_COMMANDS)}")
    return _COMMANDS[name]([f"figures {name}", *argv[2:]])


_OUTPUT = ("", "Folder to write to; a figure of the same name is replaced.")


def _parse(argv: Sequence[str], usage: str, options: Mapping, limits: Mapping):
    """(flags, other arguments, folder to write to).

    Args:
      argv, usage, options: see `commands.parse`; --output is added.
      limits: {flag: (smallest, largest)} of its numbers.
    """
    from jdissect import commands
    from jdissect.base import paths
    from jdissect.base.errors import UserError

    options = {**options, "output": _OUTPUT}
    flags, rest, _ = commands.parse(argv, f"jdissect.figures {usage}", options)
    for name, (least, most) in limits.items():
        value = flags[name].value
        if not least <= value <= most:
            raise UserError(f"--{name} is {value}; it must be in {least} .. {most}")
    if not flags.output:
        raise UserError("--output=DIR is needed, a folder for the figure")
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
            "recipes": ([], "Columns; default: all, 'none' first."),
            "count": (4, "Images of a folder, or scenes: the first ones."),
            "seed": (0, "Decides partners, lambda and boxes."),
            "size": (0, "Side of the pictures; 0 is 224, of scenes 112."),
            "exif_rotation": (False, "Turn photographs as their EXIF says."),
        },
        {"count": (1, 100), "seed": (0, 2**31 - 1), "size": (0, 4096)},
    )
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import augment
    from jdissect.base.printable import printable
    from jdissect.report.figures import mixed_pictures

    recipes = list(dict.fromkeys(flags.recipes)) or list(augment.RECIPES)
    if unknown := [name for name in recipes if name not in augment.RECIPES]:
        known = ", ".join(augment.RECIPES)
        raise UserError(f"--recipes: unknown recipe '{unknown[0]}'; known are {known}")
    names, pixels = _photographs(
        flags.images, flags.count, flags.size, flags.exif_rotation
    )
    if len(pixels) < 2 and set(recipes) - set(mixed_pictures.ALONE):
        raise UserError("one image cannot be mixed; two or more are needed")
    figure = mixed_pictures.draw(pixels, recipes, flags.seed)
    for number, name in enumerate(names):
        print(f"{mixed_pictures.letter(number)}: {printable(name)}")
    _write(figure, folder, "augmentations")
    return 0


def _photographs(images: str, count: int, size: int, exif_rotation: bool):
    """(names, uint8[image, size, size, 3]): photographs, or scenes without any.

    Raises:
      UserError: none are there, or one cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageOps

    from jdissect.scenes import open_scenes

    if not images:
        source = open_scenes("probe", count)
        names = list(source.names)
        pictures = [Image.fromarray(source.read(n).pixels) for n in range(count)]
        size = size or pictures[0].width
    else:
        names, pictures = _read_photographs(images, count, exif_rotation)
        size = size or 224
    fitted = [
        ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
        for picture in pictures
    ]
    return names, np.stack([np.asarray(picture) for picture in fitted])


def _read_photographs(images: str, count: int, exif_rotation: bool):
    """(names, PIL images): of a folder the first that can be read, or of files all."""
    from jdissect.base import paths
    from jdissect.base.errors import UserError
    from jdissect.base.printable import printable
    from jdissect.data.images import open_rgb
    from jdissect.data.source import none_read, skipped_line
    from jdissect.datasets import UnreadableImage
    from jdissect.datasets.folder import open_folder

    folder = paths.from_user(images).is_dir()
    if folder:
        source = open_folder(images)
        there = zip(source.names, source.paths, strict=True)
    else:
        alone = paths.from_user(images).is_file()  # its name may have a comma
        parts = [images] if alone else images.split(",")
        files = [part.strip() for part in parts if part.strip()]
        if missing := [f for f in files if not paths.from_user(f).exists()]:
            raise UserError(
                f"--images: there is no file or folder {printable(missing[0])}"
            )
        there, count = zip(files, files, strict=True), len(files)
    names, pictures, skipped = [], [], []
    for name, file in there:
        try:
            pictures.append(open_rgb(file, name, exif_rotation))
            names.append(name)
        except UnreadableImage as error:
            if not folder:
                raise UserError(f"--images: {error}") from None
            skipped.append((error.name, error.reason))
        if len(pictures) == count:
            break
    if not pictures:
        raise none_read(skipped)
    if skipped:
        print(skipped_line(skipped), file=sys.stderr)
    return names, pictures


def _detectors(argv: Sequence[str]) -> int:
    from jdissect import commands
    from jdissect.base.errors import UserError

    usage = "detectors RUN --output=DIR [FLAG ...]"
    options = {
        "layer": ("", "Of the run; default: the last one it probed."),
        "per_category": (3, "Detectors a category."),
        "data_path": commands.DATA_PATH,
    }
    flags, rest, folder = _parse(argv, usage, options, {"per_category": (1, 100)})
    if len(rest) != 1:
        raise UserError(f"give one run directory: {usage}")
    from jdissect.base.printable import printable
    from jdissect.report.figures import detector_pictures
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
    blocks = _strips(run, result, best, flags.data_path)
    title = f"{run.name} · {result.model}, {layer} · {result.images} images"
    figure = detector_pictures.draw(blocks, title)
    for category, detectors in best.items():
        for detector in detectors:
            print(f"{printable(category)}: {printable(detector.title)}")
    _write(figure, folder, f"detectors-{layer}")
    return 0


def _strips(
    run: "StoredRun", result, best: Mapping[str, Sequence["Detector"]], data_path: str
) -> dict[str, list["Strip"]]:
    """The detectors with their photographs and masks."""
    from jdissect.report.figures.detector_pictures import Strip
    from jdissect.report.top_masks import top_masks

    units = [detector.unit for detectors in best.values() for detector in detectors]
    images = result.top_image[units, :PICTURES]
    masks = dict(zip(units, top_masks(result, units), strict=True))
    numbers = sorted({int(n) for n in images.ravel()})
    photographs = _probe_images(run, numbers, data_path)
    shown = dict(zip(units, images, strict=True))

    def strip(detector):
        numbers = shown[detector.unit]
        pictures = [photographs[int(number)] for number in numbers]
        return Strip(detector, pictures, masks[detector.unit][: len(numbers)])

    return {
        category: [strip(detector) for detector in detectors]
        for category, detectors in best.items()
    }


def _probe_images(run: "StoredRun", numbers: Sequence[int], data_path: str) -> dict:
    """{number: pixels} of a run's images, read again; None for one that is gone.

    Raises:
      UserError: none of them is there any more.
    """
    from jdissect.base.errors import UserError
    from jdissect.report.probe_images import open_counted, read_pixels

    images = open_counted(run, data_path=data_path)
    found = {number: read_pixels(images, number) for number in numbers}
    if all(pixels is None for pixels in found.values()):
        raise UserError(
            f"the images of {run.folder} are gone or others by now; name where they "
            "are by --data_path, or run again with --overwrite"
        )
    images.tell()
    return found


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
