"""How fast are photographs read, against a plain loop of Pillow?

    python -m benchmarks.loader --images=DIR [--broden=DIR]

Images a second of the input pipeline alone. The loop opens, decodes and resizes the
same files one after the other and does nothing else; the loader brings whole batches.
Alternating, medians. The ratio is to the loop's speed times the cores that this process
may use; aim: 0.9.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.support.options import parse
from jdissect.base.errors import UserError
from jdissect.data import loader
from jdissect.datasets.broden import open_broden
from jdissect.datasets.folder import open_folder
from jdissect.runtime import command_line, resources

OPTIONS = {
    "images": ("", "A folder of photographs."),
    "broden": ("", "A folder in Broden's format."),
    "batch_size": (32, "Images a batch."),
    "repeat": (3, "Times to read all in a round."),
    "workers": (0, "Processes; 0: threads."),
    "rounds": (5, "Times to run each."),
}


def plain_folder(source) -> None:
    """What `FolderSource.read` does, in Pillow alone."""
    for path in source.paths:
        with Image.open(path) as image:
            image = image.convert("RGB")
        image = image.resize((256, 256), Image.Resampling.BILINEAR)
        np.asarray(image.crop((16, 16, 240, 240)))


def plain_broden(source) -> None:
    """What `BrodenSource.read` does, in Pillow and NumPy alone."""
    for row in source.rows:
        with Image.open(Path(source.root) / "images" / row.image) as image:
            np.asarray(image.convert("RGB"))
        for item in row.items:
            if isinstance(item, str):
                with Image.open(Path(source.root) / "images" / item) as image:
                    mask = np.asarray(image)
                mask[..., 0] + 256 * mask[..., 1].astype(np.int32)


def through_loader(source, options) -> None:
    for _ in range(options.repeat):
        for _ in loader.batches(source, options.batch_size, workers=options.workers):
            pass


def measure(name, source, plain, options) -> None:
    """Prints a line."""
    images = len(source.names) * options.repeat
    loop, ours = [], []
    for number in range(options.rounds + 1):
        start = time.perf_counter()
        for _ in range(options.repeat):
            plain(source)
        middle = time.perf_counter()
        through_loader(source, options)
        if number:  # the first warms the disk's cache
            loop.append(images / (middle - start))
            ours.append(images / (time.perf_counter() - middle))
    cores = resources.cores()
    one, all_ = statistics.median(loop), statistics.median(ours)
    print(
        f"{name:8s} loop {one:7.1f} img/s   loader {all_:7.1f} img/s   "
        f"{all_ / cores:7.1f} a core   {all_ / (one * cores):.2f} of the loop x {cores}"
    )


def main(argv: list[str]) -> int:
    """Measures and prints."""
    options = parse(argv, "loader", OPTIONS)
    if not options.images and not options.broden:
        raise UserError("name a folder: --images=DIR, --broden=DIR, or both")
    if options.images:
        measure("folder", open_folder(options.images), plain_folder, options)
    if options.broden:
        measure("broden", open_broden(options.broden), plain_broden, options)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
