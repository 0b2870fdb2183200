"""Numbers the classes of a folder by the order of their names.

PyTorch's ImageFolder sorts class folders as text, where '10' comes before '2'; most
others who name folders by numbers mean numeric order. Where the two differ, neither is
used until `config.data.class_order` chooses one.
"""

import decimal
import os
import re
from collections.abc import Collection, Sequence

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_CHOICE = (
    "config.data.class_order=text (PyTorch's ImageFolder), number, or a file that "
    "lists the classes in order, one per line"
)


def in_text_order(names: Collection[str]) -> tuple[str, ...]:
    """Returns the names sorted by their bytes."""
    return tuple(sorted(names, key=os.fsencode))


def in_number_order(names: Collection[str]) -> tuple[str, ...]:
    """Returns the names sorted by the numbers in them: class_2 before class_10."""
    if all(map(_NUMBER.fullmatch, names)):
        return tuple(sorted(names, key=lambda name: (decimal.Decimal(name), name)))
    return tuple(sorted(names, key=_natural))


def ordered(names: Collection[str], choice: str, where: str) -> tuple[str, ...]:
    """Returns the class names in the order of their numbers.

    Args:
      names: distinct names of class folders, in any order.
      choice: `config.data.class_order`: 'text', 'number', the path of a file that
        lists the classes in order, or '': text order, unless all names are numbers
        and numeric order differs.
      where: prefix of messages.

    Returns:
      the names; for a file, all names that it lists.

    Raises:
      UserError: '' is ambiguous, or the file cannot be read, lists a class twice, or
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
            f"{other}, as a number after it. Choose one with {_CHOICE}."
        )
    return as_text


def doubt(names: Sequence[str]) -> str:
    """Returns a warning if the names may be meant in numeric instead of text order.

    Args:
      names: names of class folders in the order that '' chose.

    Returns:
      one line, or '' if the order is not in doubt.
    """
    as_numbers = in_number_order(names)
    if tuple(names) != in_text_order(names) or tuple(names) == as_numbers:
        return ""
    if len({re.sub(r"[0-9]+", "0", name) for name in names}) > 1:
        return ""  # the names have equal numbers
    one, other = _swapped(names, as_numbers)
    return (
        f"classes are numbered in text order, {one} before {other}; give "
        "config.data.class_order=number for numeric order, or =text for this one"
    )


def _natural(name: str) -> tuple:
    """Returns a sort key that compares the numbers in a name as numbers."""
    parts = re.split(r"([0-9]+)", name)
    numbers = tuple(map(decimal.Decimal, parts[1::2]))
    texts = tuple(map(os.fsencode, parts[::2]))
    # Alternates text, number, text, ..., so that like is compared with like.
    return (texts[0], *zip(numbers, texts[1:], strict=True)), name


def _swapped(as_text: Sequence[str], as_numbers: Sequence[str]) -> tuple[str, str]:
    """Returns two names whose text order and numeric order differ."""
    place = {name: number for number, name in enumerate(as_numbers)}
    for one, other in zip(as_text, as_text[1:], strict=False):
        if place[one] > place[other]:
            return printable(one, 60), printable(other, 60)
    raise AssertionError("different orders have a differing pair of neighbors")


def _listed_in(choice: str, names: Collection[str], where: str) -> tuple[str, ...]:
    path = paths.from_user(choice).expanduser()
    what = f"config.data.class_order: {path}"
    try:
        text = paths.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{what} does not exist; use 'text', 'number', or a file that lists "
            "the classes in order, one per line."
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
