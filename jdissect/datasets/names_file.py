"""Reads `names.txt`: what the numbers, or colors, of a folder's masks mean."""

import csv
import dataclasses
import re
from collections.abc import Iterator
from typing import TypeGuard

from jdissect.base.concepts import NOTHING
from jdissect.base.errors import UserError
from jdissect.base.paths import Path
from jdissect.base.printable import printable
from jdissect.data.files import read_bytes

LARGEST_NUMBER = 0xFFFF  # of a PNG's 16 bits
CATEGORY = "object"  # of a line without one
# The only ones in lines separated by blanks, so that a name of two words is not taken
# for a name and its category.
USUAL = ("object", "part", "material", "color", "scene", "texture")

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Label:
    """One line of the file.

    Attributes:
        number: in masks; 0 means no label.
        name: of the concept; '-' means no label.
        category: of the concept.
        color: (red, green, blue) in masks of mode RGB, or None.
    """

    number: int
    name: str
    category: str
    color: Color | None


def read_names(path: Path) -> tuple[Label, ...]:
    """Reads lines of `number name [category] [color]`, in the file's order.

    Columns are separated by tabs if the file has one, else by commas if it has one
    (cells may be quoted), else by blanks. An empty category means 'object'. A color is
    '#rrggbb' or 'red green blue'. Empty lines, lines that begin with '#', and a first
    line that begins with 'number' are left out. A category may list a number or color
    once.

    Raises:
        UserError: the file is missing, not UTF-8 or malformed; names the line.
    """
    labels: list[Label] = []
    seen: dict[tuple[object, str], int] = {}
    for line, cells, separator in _lines(path):
        where = f"{path}, line {line}"
        if not 2 <= len(cells) <= (4 if separator else 3):
            tabs = "; separate columns by tabs if names have blanks"
            raise UserError(
                f"{where} has {len(cells)} columns; it must be number, name and, where "
                f"needed, category and color{'' if separator else tabs}."
            )
        number, name, category, color = (*cells, "", "")[:4]
        if not re.fullmatch(r"[0-9]{1,9}", number) or int(number) > LARGEST_NUMBER:
            raise UserError(
                f"{where}: number is '{printable(number, 80)}'; it must be a number "
                f"from 0 to {LARGEST_NUMBER}."
            )
        if not name:
            raise UserError(f"{where}: the name is empty; '-' means no label.")
        if not separator and category and category not in USUAL:
            raise UserError(
                f"{where}: '{printable(category, 80)}' is none of the categories "
                f"{', '.join(USUAL)}; separate columns by tabs for other categories, "
                "or if names have blanks."
            )
        label = Label(int(number), name, category or CATEGORY, _color(color, where))
        keys = {f"number {label.number}": label.number, "the color": label.color}
        for what, key in keys.items():
            first = seen.setdefault((key, label.category), line)
            if first != line and key is not None:
                raise UserError(f"{where}: {what} is also in line {first}.")
        labels.append(label)
    if not any(label.number and label.name != NOTHING for label in labels):
        raise UserError(f"{path} names no concept.")
    return tuple(labels)


def categories_of(labels: tuple[Label, ...]) -> tuple[str, ...]:
    """Returns the categories in order of first appearance."""
    return tuple(dict.fromkeys(label.category for label in labels))


def is_text(value: object) -> TypeGuard[str]:
    """Returns whether a value from JSON or MATLAB can be stored as a name.

    Texts of NumPy lose trailing NULs, and UTF-8 has no lone surrogates.
    """
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Yields (line number, cells, separator) of the lines that name something."""
    try:
        content = read_bytes(path)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; it must list the masks' numbers, a line each: "
            "number name [category]."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        place = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 text: line {place}.") from None
    lines = [(place, line.strip()) for place, line in enumerate(text.splitlines(), 1)]
    lines = [(place, line) for place, line in lines if line and line[0] != "#"]
    if lines and re.match(r"number\b", lines[0][1]):
        lines = lines[1:]
    separator = next((s for s in "\t," if any(s in line for _, line in lines)), "")
    for place, line in lines:
        # NumPy strings, which store the concepts, lose trailing NULs.
        if "\0" in line:
            raise UserError(f"{path}, line {place} has a NUL character.")
        cells = line.split()
        if separator:
            try:
                cells = next(csv.reader([line], delimiter=separator))
            except csv.Error as error:
                raise UserError(f"{path}, line {place}: {error}.") from None
        cells = [cell.strip() for cell in cells]
        yield place, cells, separator


def _color(text: str, where: str) -> Color | None:
    if not text:
        return None
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        red, green, blue = bytes.fromhex(text[1:])
        return red, green, blue
    parts = re.split(r"[ ,;]+", text)
    if len(parts) == 3 and all(re.fullmatch(r"[0-9]{1,3}", part) for part in parts):
        red, green, blue = map(int, parts)
        if max(red, green, blue) < 256:
            return red, green, blue
    raise UserError(
        f"{where}: color '{printable(text, 80)}' must be #rrggbb, or red green blue "
        "from 0 to 255."
    )
