"""Draws a segmenter's labels, to check them before trusting a count:

    python -m jdissect.segment --config=configs/mixup.py:imagenet --images=PHOTOS \
        --config.segmenter.upernet=weights/upernet --output=seen

writes one PNG per image: the photograph, its objects, materials, parts and colors side
by side, with the names of the concepts.
"""

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Parses the command line and draws; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.base.errors import UserError
    from jdissect.base.paths import local
    from jdissect.runtime import command_line

    flags = command_line.define(
        argv,
        {
            "images": "Folder of photographs; default: the images of config.data.",
            "output": "Folder to write pictures to.",
        },
        {"overwrite": "Write to a folder that is not empty."},
    )
    config = command_line.parse(flags, argv)
    if not flags.output:
        raise UserError("--output=DIR is required: the folder for the pictures")
    if flags.images:
        config.data.source, config.data.path = "folder", flags.images
    segment(config, local(flags.output, "--output"), flags.overwrite)
    return 0


def segment(config, output: Path, overwrite: bool = False) -> None:
    """Draws every image of `config.data` with the labels of `config.segmenter`.

    Raises:
      UserError: an input is invalid.
    """
    from jdissect.base.progress import Progress

    with Progress() as progress:
        _segment(config, output, overwrite, progress)


def _segment(config, output: Path, overwrite: bool, progress) -> None:
    from jdissect.base.errors import UserError
    from jdissect.base.printable import printable
    from jdissect.base.progress import ImageBars
    from jdissect.data import loader
    from jdissect.data.source import none_read
    from jdissect.datasets import open_source
    from jdissect.dissection import settings
    from jdissect.report.figures import overlay
    from jdissect.runtime import machine
    from jdissect.runtime.devices import network_devices
    from jdissect.segmenters import open_segmenter, smallest_image
    from jdissect.segmenters.parsing import QUARTER_MAPS

    settings.check(config)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give another --output")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise UserError(f"{output} is not empty; give another --output or --overwrite")
    devices, _ = network_devices(config.parallel)
    cache_dir = machine.cache_dir(config.cache.dir)
    machine.use_compilation_cache(cache_dir)
    source = open_source(config.data, smallest_image(config.segmenter.name))
    with progress.stage("hashing images"):
        hashes = source.content_hashes(cache_dir)
    with progress.stage("opening the segmenter"):
        segmenter = open_segmenter(config, source, hashes, devices, cache_dir)
    output.mkdir(parents=True, exist_ok=True)
    skipped, written = [], 0
    size = min(config.data.batch_size, config.segmenter.batch_size) * len(devices)
    batches = loader.batches(
        source, size, workers=config.data.workers, strict=config.data.strict
    )
    for batch in ImageBars(progress, len(source.names))(batches, "segment"):
        skipped += batch.skipped
        maps = segmenter.label_maps(batch)
        for place in range(len(batch.index)):
            if not batch.valid[place]:
                continue
            name = source.names[batch.index[place]]
            shown = overlay.panels(
                maps[place], segmenter.concepts, segmenter.map_names, QUARTER_MAPS
            )
            path = output / f"{_short(name)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = overlay.draw(
                batch.pixels[place], printable(name), shown, segmenter.concepts
            )
            picture.save(path)
            written += 1
    for index, reason in skipped:
        print(f"skipped {printable(source.names[index])}: {reason}", file=sys.stderr)
    if not written:
        with contextlib.suppress(OSError):  # it may hold other files
            output.rmdir()
        raise none_read([(source.names[index], why) for index, why in skipped])
    print(f"{written} pictures written to {output}")


def _short(name: str, limit: int = 240) -> str:
    """Shortens an image's name to leave room for an ending: names have 255 bytes."""
    folder, slash, file = name.rpartition("/")
    if len(file.encode()) > limit:
        digest = hashlib.sha256(file.encode()).hexdigest()[:16]
        file = file.encode()[: limit - 17].decode(errors="ignore") + f"-{digest}"
    return folder + slash + file


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
