"""Which number a class has: the order of the classes' names.

PyTorch's ImageFolder sorts class folders as text, where '10' comes before '2'; most
others who name folders by numbers mean the numbers. So where the two differ, neither is
taken until `config.data.class_order` says which.
"""

import decimal
import os
import re
from collections.abc import Sequence

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_CHOICE = (
    "config.data.class_order=text (PyTorch's ImageFolder), number, or a file that "
    "lists the classes in order, one a line"
)


def in_text_order(names: Sequence[str]) -> tuple[str, ...]:
    """The names by their bytes."""
    return tuple(sorted(names, key=os.fsencode))


def in_number_order(names: Sequence[str]) -> tuple[str, ...]:
    """The names by the numbers in them: 2 before 10, class_2 before class_10."""
    if all(map(_NUMBER.fullmatch, names)):
        return tuple(sorted(names, key=lambda name: (decimal.Decimal(name), name)))
    return tuple(sorted(names, key=_natural))


def ordered(names: Sequence[str], choice: str, where: str) -> tuple[str, ...]:
    """The names of class folders in the order of their numbers.

    Args:
      names: distinct, in any order.
      choice: `config.data.class_order`: 'text', 'number', the path of a file that
        lists the classes in order, or '': text, unless names that are all numbers
        would be in another order as numbers.
      where: begins messages.

    Returns:
      the names; of a file all that it lists.

    Raises:
      UserError: '' is ambiguous; the file cannot be read, lists a class twice, or
        leaves out one of the names.
    """
    if choice not in ("", "text", "number"):
        return _listed_in(choice, names, where)
    as_text, as_numbers = in_text_order(names), in_number_order(names)
    if choice:
        return as_text if choice == "text" else as_numbers
    if as_text != as_numbers and all(map(_NUMBER.fullmatch, names)):
        one, other = _swapped(as_text, as_numbers)
        raise UserError(
            f"{where} has class folders named by numbers: as text {one} comes before "
            f"{other}, as a number after it. Say which is meant by {_CHOICE}."
        )
    return as_text


def doubt(names: Sequence[str]) -> str:
    """A warning where names in text order are in another one by the numbers in them.

    Args:
      names: class folders' in the order that '' has given them.

    Returns:
      one line, '' where there is no doubt.
    """
    as_numbers = in_number_order(names)
    if tuple(names) != in_text_order(names) or tuple(names) == as_numbers:
        return ""
    if len({re.sub(r"[0-9]+", "0", name) for name in names}) > 1:
        return ""  # numbers do not tell these names apart
    one, other = _swapped(names, as_numbers)
    return (
        f"classes are numbered in text order, {one} before {other}; give "
        "config.data.class_order=number for that of their numbers, text for this one"
    )


def _natural(name: str) -> tuple:
    """A key that compares the numbers in a name as numbers."""
    parts = re.split(r"([0-9]+)", name)
    numbers = tuple(map(decimal.Decimal, parts[1::2]))
    texts = tuple(map(os.fsencode, parts[::2]))
    # text, number, text, ...: parts of a kind meet.
    return (texts[0], *zip(numbers, texts[1:], strict=True)), name


def _swapped(as_text: Sequence[str], as_numbers: Sequence[str]) -> tuple[str, str]:
    """Two names, the first of which comes first as text and last as a number."""
    place = {name: number for number, name in enumerate(as_numbers)}
    for one, other in zip(as_text, as_text[1:], strict=False):
        if place[one] > place[other]:
            return printable(one, 60), printable(other, 60)
    raise AssertionError("orders that differ have neighbours that do")


def _listed_in(choice: str, names: Sequence[str], where: str) -> tuple[str, ...]:
    path = paths.from_user(choice).expanduser()
    what = f"config.data.class_order: {path}"
    try:
        text = paths.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{what} does not exist; it can be 'text', 'number', or a file that lists "
            "the classes in order, one a line."
        ) from None
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{what} is not UTF-8 text.") from None
    classes = tuple(filter(None, map(str.strip, re.split(r"[\r\n]+", text))))
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{what} lists class {printable(twice)} twice.")
    known = set(classes)
    if missing := [name for name in in_text_order(names) if name not in known]:
        raise UserError(
            f"{what} does not list all classes of {where}: {listed(missing)}."
        )
    return classes
