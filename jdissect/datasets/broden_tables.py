"""Reads Broden's tables: the meaning of the numbers, and the masks of each image.

The layout is that of the Network Dissection release of 2017 (CSAILVision/NetDissect):
`label.csv`, `category.csv`, `c_CATEGORY.csv` and `index.csv`.
"""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from jdissect.base.errors import UserError
from jdissect.base.paths import Path
from jdissect.base.printable import listed, printable
from jdissect.data.files import read_bytes

LARGEST_NUMBER = 0xFFFF  # the largest value of red + 256 * green
INDEX_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The meaning of the numbers in a Broden folder.

    Attributes:
        concepts: (name, primary category) by number; ('-', '') for 0 and gaps.
        known: the numbers that `label.csv` lists, and 0.
        categories: the names of `category.csv`, in its order.
        files: the tables that were read.
    """

    concepts: tuple[tuple[str, str], ...]
    known: frozenset[int]
    categories: tuple[str, ...]
    files: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One image of `index.csv`.

    Attributes:
        line: line number in the file, for error messages.
        image: path of the image under `images/`.
        split: 'train', 'val', ...
        image_shape: (ih, iw) in pixels.
        grid: (sh, sw), size of its masks in pixels.
        items: label maps of all categories, in column order: a number for the whole
            image, or the path of a PNG under `images/`.
        cells: (category, cell) as written in the file.
    """

    line: int
    image: str
    split: str
    image_shape: tuple[int, int]
    grid: tuple[int, int]
    items: tuple[int | str, ...]
    cells: tuple[tuple[str, str], ...]


def read_vocabulary(root: Path) -> Vocabulary:
    """Reads `label.csv`, `category.csv` and the `c_CATEGORY.csv` files.

    A number that several categories share belongs to the category where it covers most
    pixels, by the `coverage` of `c_CATEGORY.csv`; on a tie to the later one in
    `category.csv` (the 2017 code takes the maximum over pairs of coverage and
    position). If any `c_CATEGORY.csv` is missing, the image counts in `label.csv`
    ("object(160);part(3)") decide for every number instead.

    Raises:
        UserError: a table is missing or malformed, or names an unknown category.
    """
    order = {
        row["name"]: position
        for position, (_, row) in enumerate(_table(root / "category.csv", ["name"]))
    }
    coverage_files = [root / f"c_{name}.csv" for name in order]
    coverage = None
    if all(path.is_file() for path in coverage_files):
        coverage = {
            name: _coverage(path)
            for name, path in zip(order, coverage_files, strict=True)
        }
    path = root / "label.csv"
    concepts: dict[int, tuple[str, str]] = {0: ("-", "")}
    seen: set[int] = set()
    for line, row in _table(path, ["number", "name", "category"]):
        where = f"{path}, line {line}"
        number = _integer(row["number"], f"{where}: number")
        if number > LARGEST_NUMBER:
            raise UserError(
                f"{where}: number {number} exceeds {LARGEST_NUMBER}, the largest "
                "number a mask can encode."
            )
        if number in seen:
            raise UserError(f"{where}: number {number} is listed twice.")
        seen.add(number)
        if number == 0 or row["name"] in ("", "-"):
            concepts[number] = ("-", "")
            continue
        counts = _category_counts(row["category"], where)
        for category in counts:
            if category not in order:
                raise UserError(
                    f"{where}: category {_quoted(category)} is not in category.csv, "
                    f"which has {listed(list(order), 20)}."
                )
        if coverage is not None:
            counts = {name: coverage[name].get(number, 0.0) for name in counts}
        primary = max(counts, key=lambda name: (counts[name], order[name]))
        concepts[number] = (row["name"], primary)
    return Vocabulary(
        concepts=tuple(concepts.get(n, ("-", "")) for n in range(max(concepts) + 1)),
        known=frozenset(concepts),
        categories=tuple(order),
        files=(
            path,
            root / "category.csv",
            *(file for file in coverage_files if file.is_file()),
        ),
    )


def read_index(root: Path, vocabulary: Vocabulary) -> list[Row]:
    """Reads `index.csv`: every row, in the file's order.

    Raises:
        UserError: the file is missing or malformed, a cell item is neither a PNG nor a
            number of `label.csv`, or a path leaves `images/`.
    """
    path = root / "index.csv"
    rows = []
    for line, table_row in _table(path, INDEX_COLUMNS):
        where = f"{path}, line {line}"
        cells = tuple(
            (name, cell)
            for name, cell in table_row.items()
            if name not in INDEX_COLUMNS
        )
        for name, _ in cells:
            if name not in vocabulary.categories:
                raise UserError(
                    f"{path}: column {_quoted(name)} is not a category of "
                    f"category.csv, which has {listed(vocabulary.categories, 20)}."
                )
        ih, iw, sh, sw = (
            _integer(table_row[name], f"{where}: {name}", smallest=1)
            for name in INDEX_COLUMNS[2:]
        )
        rows.append(
            Row(
                line=line,
                image=_inside(table_row["image"], f"{where}: image"),
                split=table_row["split"],
                image_shape=(ih, iw),
                grid=(sh, sw),
                items=tuple(
                    _item(text, vocabulary, f"{where}: {name}")
                    for name, cell in cells
                    for text in filter(None, (t.strip() for t in cell.split(";")))
                ),
                cells=cells,
            )
        )
    if not rows:
        raise UserError(f"{path} lists no images.")
    return rows


def _item(text: str, vocabulary: Vocabulary, where: str) -> int | str:
    """Parses one item of a cell: a number of `label.csv` or a PNG's path."""
    if text.lower().endswith(".png"):
        return _inside(text, where)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(f"{where}: {_quoted(text)} is neither a number nor a PNG file.")
    number = int(text)
    if number not in vocabulary.known:
        raise UserError(f"{where}: number {number} is not in label.csv.")
    return number


def _inside(path: str, where: str) -> str:
    """Returns the path if it stays inside the folder `images/`."""
    parts = PurePosixPath(path).parts
    if not parts:
        raise UserError(f"{where} is empty; it must be a path under images/.")
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise UserError(f"{where}: {_quoted(path)} leads out of the folder images/.")
    return path


def _category_counts(cell: str, where: str) -> dict[str, float]:
    """Parses 'object(160);part(3)' to {category: images}; a missing count is 0."""
    counts = {}
    for item in filter(None, (item.strip() for item in cell.split(";"))):
        match = re.fullmatch(r"(.*?)(?:\(([0-9]{1,18})\))?", item, re.DOTALL)
        assert match is not None  # anything matches
        counts[match[1]] = float(match[2] or 0)
    if not counts:
        raise UserError(f"{where}: the label has no category.")
    return counts


def _coverage(path: Path) -> dict[int, float]:
    """Returns {number: coverage} of a `c_CATEGORY.csv`."""
    coverage = {}
    for line, row in _table(path, ["number", "coverage"]):
        number = _integer(row["number"], f"{path}, line {line}: number")
        try:
            coverage[number] = float(row["coverage"])
        except ValueError:
            coverage[number] = math.nan
        if not math.isfinite(coverage[number]):
            raise UserError(
                f"{path}, line {line}: coverage {_quoted(row['coverage'])} is not a "
                "number."
            )
    return coverage


def _integer(text: str, where: str, smallest: int = 0) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < smallest:
        raise UserError(
            f"{where} is {_quoted(text)}; it must be an integer >= {smallest}."
        )
    return int(text)


def _quoted(text: str) -> str:
    """Returns a cell as messages show it."""
    return f"'{printable(text, 80)}'"


def _table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, {column: cell}) of a CSV file with a header, cells stripped.

    Raises:
        UserError: the file is missing or not UTF-8, a column is missing or repeated,
            or a row has more or fewer cells than the header.
    """
    try:
        content = read_bytes(path)
        text = content.decode("utf-8-sig")
        with io.StringIO(text, newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in required if name not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {missing[0]!r}; Broden's has "
                    f"{', '.join(required)}."
                )
            if len(set(header)) < len(header):
                raise UserError(f"{path} has two columns of the same name.")
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells, but the "
                        f"header has {len(header)}."
                    )
                # NumPy strings, which store the concepts, lose trailing NULs.
                if any("\0" in cell for cell in cells):
                    raise UserError(
                        f"{path}, line {reader.line_num}: a cell has a NUL character."
                    )
                stripped = (cell.strip() for cell in cells)
                yield reader.line_num, dict(zip(header, stripped, strict=True))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; source 'broden' needs a folder in Broden's layout."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 text: line {line}.") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}.") from None
