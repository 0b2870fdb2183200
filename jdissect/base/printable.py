"""Makes names from files and folders safe to print on one line of a terminal."""

import unicodedata
from collections.abc import Sequence

# Control and format characters (line ends, terminal escapes, changes of the writing
# direction), surrogates, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, limit: int = 200) -> str:
    """Returns a text on one line, with characters that control a terminal escaped.

    For messages only: files store the true names.

    Args:
      text: the name of an image, class, concept or tensor, or any text from a file.
      limit: maximum length of the result; a longer one loses its middle.
    """
    shown = "".join(map(_escaped, text))
    if len(shown) <= limit:
        return shown
    tail = (limit - 3) // 2
    return f"{shown[: limit - 3 - tail]}...{shown[len(shown) - tail :]}"


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Returns the first `limit` names on one line, printable, and how many remain."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("ascii", "backslashreplace").decode().translate(_CONTROLS)


# ASCII control characters are escaped by hand.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_CONTROLS |= {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
