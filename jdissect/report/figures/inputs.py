"""Reads the photographs that figures show: given ones, scenes, or a run's images."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.images import open_rgb
from jdissect.data.source import none_read, skipped_line
from jdissect.datasets import UnreadableImage
from jdissect.datasets.folder import open_folder
from jdissect.report.figures.detector_pictures import Detector, Strip
from jdissect.report.probe_images import open_counted, read_pixels
from jdissect.report.top_masks import top_masks
from jdissect.results.finished_run import StoredRun
from jdissect.scenes import open_scenes

PICTURES = 5  # maximum number of images per unit


def photographs(images: str, count: int, size: int, exif_rotation: bool):
    """Returns (names, uint8[image, size, size, 3]) of photographs, or of scenes.

    Raises:
      UserError: there are none, or one cannot be read.
    """
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
    """Returns (names, PIL images): a folder's first readable ones, or all files."""
    folder = paths.from_user(images).is_dir()
    if folder:
        source = open_folder(images)
        there = zip(source.names, source.paths, strict=True)
    else:
        alone = paths.from_user(images).is_file()  # its name may contain a comma
        parts = [images] if alone else images.split(",")
        files = [part.strip() for part in parts if part.strip()]
        if missing := [f for f in files if not paths.from_user(f).exists()]:
            raise UserError(
                f"--images: no such file or folder: {printable(missing[0])}"
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


def strips(
    run: StoredRun, result, best: Mapping[str, Sequence[Detector]], data_path: str
) -> dict[str, list[Strip]]:
    """Returns the detectors with their photographs and masks."""
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


def _probe_images(run: StoredRun, numbers: Sequence[int], data_path: str) -> dict:
    """Reads a run's images again: {number: pixels}, None for a missing one.

    Raises:
      UserError: none of them exists any more.
    """
    images = open_counted(run, data_path=data_path)
    found = {number: read_pixels(images, number) for number in numbers}
    if all(pixels is None for pixels in found.values()):
        raise UserError(
            f"the images of {run.folder} are missing or have changed; give "
            "their folder by --data_path, or run again with --overwrite"
        )
    images.tell()
    return found
