"""Cells of tables that people open in spreadsheets."""

from typing import Any

# What a spreadsheet takes for the beginning of a formula (OWASP: CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe_cell(value: Any) -> Any:
    """A cell's value; text that would run as a formula gets an apostrophe before it.

    Concepts' names come from files of other people.
    """
    if isinstance(value, str) and value.lstrip(" \ufeff").startswith(_FORMULA):
        return f"'{value}"
    return value
