"""Tables that people open in spreadsheets: CSV, with names of other people in it."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

# What a spreadsheet takes for the beginning of a formula (OWASP: CSV injection), the
# wide forms of East Asian keyboards among them.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_QUOTE = "'"


def safe_cell(value: Any) -> Any:
    """A cell's value; text that would run as a formula gets an apostrophe before it.

    So does text that begins with an apostrophe: `true_text` gives every name back.
    """
    if isinstance(value, str):
        start = value.lstrip(" \ufeff")
        if start.startswith(_FORMULA) or value.startswith(_QUOTE):
            return _QUOTE + value
    return value


def true_text(cell: str) -> str:
    """The text of which `safe_cell` made a cell."""
    return cell.removeprefix(_QUOTE)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, a line each; None is an empty cell, and text is made safe."""
    whole, line = io.StringIO(), io.StringIO()
    # Ends lines with both characters, so that a cell with either one is quoted.
    writer = csv.writer(line, lineterminator="\r\n")
    for row in rows:
        line.seek(0)
        line.truncate()
        writer.writerow(["" if cell is None else safe_cell(cell) for cell in row])
        whole.write(line.getvalue()[:-2])
        whole.write("\n")
    return whole.getvalue()


def csv_rows(text: str) -> csv.DictReader:
    """The rows of `csv_text` by the names of their columns, cells as they stand there.

    Reading them raises csv.Error where the text is no CSV.
    """
    return csv.DictReader(io.StringIO(text, newline=""), strict=True)
