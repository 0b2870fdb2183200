"""Writes and reads CSV tables that are safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable
from typing import Any

# Characters that start a formula in a spreadsheet (OWASP: CSV injection), including
# their full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_QUOTE = "'"


def safe_cell(value: Any) -> Any:
    """Returns a cell's value; text that would run as a formula gets a leading "'".

    Text that already begins with an apostrophe gets one too, so that `true_text` can
    restore every name.
    """
    if isinstance(value, str):
        start = value.lstrip(" \ufeff")
        if start.startswith(_FORMULA) or value.startswith(_QUOTE):
            return _QUOTE + value
    return value


def true_text(cell: str) -> str:
    """Returns the text from which `safe_cell` made a cell."""
    return cell.removeprefix(_QUOTE)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Returns rows as CSV text; None becomes an empty cell, and text is made safe."""
    whole, line = io.StringIO(), io.StringIO()
    # With both characters as line end, a cell that contains either one is quoted.
    writer = csv.writer(line, lineterminator="\r\n")
    for row in rows:
        line.seek(0)
        line.truncate()
        writer.writerow(["" if cell is None else safe_cell(cell) for cell in row])
        whole.write(line.getvalue()[:-2])
        whole.write("\n")
    return whole.getvalue()


def csv_rows(text: str) -> csv.DictReader:
    """Returns a reader of `csv_text` output: one dict per row, cells unchanged.

    Iterating raises csv.Error if the text is not valid CSV.
    """
    return csv.DictReader(io.StringIO(text, newline=""), strict=True)
