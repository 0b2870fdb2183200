"""Writes scenes as a folder in Broden's layout (see `datasets.broden_tables`).

`jdissect.datasets.broden.open_broden` reads it back, pixel for pixel and label for
label, as does other software that knows the layout.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32
from PIL import Image

from jdissect.base import replacing
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.progress import counting
from jdissect.scenes.source import ScenesSource
from jdissect.scenes.world import CONCEPTS, MAPS, SIDE


def export(source: ScenesSource, folder: Path, overwrite: bool = False) -> None:
    """Writes images, masks and tables.

    Args:
        source: scenes to write.
        folder: folder to write to; created if needed.
        overwrite: whether to replace an earlier export.

    Raises:
        UserError: the folder is a file, or not empty.
    """
    _check(folder, overwrite)
    own = {"label.csv", "category.csv", "images"}
    own |= {path.name for path in folder.glob("c_*.csv")}
    with replacing.content_of(folder, "index.csv", own) as place:
        _export(source, place)


def _export(source: ScenesSource, folder: Path) -> None:
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((len(MAPS), len(CONCEPTS)), np.int64)
    seen = np.zeros_like(pixels)
    rows = []
    with counting("export", source.num_images) as task:
        for index in range(source.num_images):
            example = source.read(index)
            assert example.labels is not None  # all pictures have them
            stem = f"{index // 1000:03d}/{index:06d}"
            (images / stem).parent.mkdir(exist_ok=True)
            _save(images / f"{stem}.png", example.pixels)
            cells = []
            for place, category in enumerate(MAPS):
                mask = example.labels[place]
                count = np.bincount(mask.ravel(), minlength=len(CONCEPTS))
                count[0] = 0
                pixels[place] += count
                seen[place] += count > 0
                cell = ""
                if count.any():
                    cell = f"{stem}_{category}.png"
                    _save(images / cell, _coded(mask))
                cells.append(cell)
            rows.append([f"{stem}.png", source.split, *[SIDE] * 4, *cells])
            task.advance(1)
    coverage = pixels / (SIDE * SIDE)
    write_tables(folder, seen, coverage)
    # Last, so that a folder with an index is complete.
    header = ["image", "split", "ih", "iw", "sh", "sw", *MAPS]
    _write(folder / "index.csv", header, rows)


def write_tables(
    folder: Path,
    seen: Int32[np.ndarray, "map number"],
    coverage: Float[np.ndarray, "map number"],
) -> None:
    """Writes `label.csv`, `category.csv` and `c_CATEGORY.csv`.

    Args:
        folder: folder to write to.
        seen: number of images in which a map shows a number.
        coverage: pixels of it, in units of whole images.
    """
    labels = [
        # One category each, its own: a part with an object's name stays an object for
        # readers, even where the export shows it as a part.
        [
            number,
            name,
            f"{category}({int(seen[:, number].sum())})",
            int(seen[:, number].sum()),
            f"{float(np.sum(coverage[:, number])):.6f}",
            "",
        ]
        for number, (name, category) in enumerate(CONCEPTS)
        if number
    ]
    header = ["number", "name", "category", "frequency", "coverage", "syns"]
    _write(folder / "label.csv", header, labels)
    summary = []
    for place, category in enumerate(MAPS):
        own = [n for n, (_, of) in enumerate(CONCEPTS) if of == category]
        listed = sorted({*own, *np.flatnonzero(seen[place]).tolist()})
        table = [
            [
                code,
                number,
                CONCEPTS[number][0],
                int(seen[place, number]),
                f"{float(coverage[place][number]):.6f}",
            ]
            for code, number in enumerate(listed, 1)
        ]
        header = ["code", "number", "name", "frequency", "coverage"]
        _write(folder / f"c_{category}.csv", header, table)
        total = int(seen[place].sum())
        summary.append([category, min(listed), max(listed), len(listed), total])
    header = ["name", "first", "last", "count", "frequency"]
    _write(folder / "category.csv", header, summary)


def _check(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --export.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{folder} is not empty; give another --export or --overwrite.")


def _coded(mask: Int32[np.ndarray, "height width"]) -> np.ndarray:
    """Encodes numbers as red + 256 * green."""
    red, green = mask % 256, mask // 256
    return np.stack([red, green, np.zeros_like(mask)], axis=-1).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=4)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
