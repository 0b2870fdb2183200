"""Names that come out of files and folders, made fit for a line on a terminal."""

import unicodedata
from collections.abc import Sequence

# Control and format characters (line ends, terminal escapes, those that turn the
# direction of writing), halves of surrogate pairs, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, limit: int = 200) -> str:
    """The text with what a terminal would obey escaped, on one line.

    What is stored keeps true names; this is for messages only.

    Args:
      text: of an image, a class, a concept, a tensor: whatever a file could hold.
      limit: length of the result at most; of a longer one the middle is left out.
    """
    shown = "".join(map(_escaped, text))
    if len(shown) <= limit:
        return shown
    tail = (limit - 3) // 2
    return f"{shown[: limit - 3 - tail]}...{shown[len(shown) - tail :]}"


def listed(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names on one line, each printable, and how many more."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("ascii", "backslashreplace").decode().translate(_CONTROLS)


# What is ASCII has to be escaped by hand.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_CONTROLS |= {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
