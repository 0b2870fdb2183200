"""Vocabularies: a label number stands for a (name, category).

A vocabulary is a sequence of (name, category) by number. Number 0 is "nothing", and a
number named '-' is never a concept. Names repeat across categories, so a concept's
identity is the pair.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# The paper's four categories come first and always, in this order.
PAPER_CATEGORIES = ("object", "part", "material", "color")
NOTHING = "-"

Concepts = Sequence[tuple[str, str]]


def columns(concepts: Concepts) -> Int[np.ndarray, "concept"]:
    """The numbers that are concepts, ascending: columns of every result array."""
    return np.asarray(
        [n for n, (name, _) in enumerate(concepts) if n > 0 and name != NOTHING],
        dtype=np.int32,
    )


def categories(concepts: Concepts) -> tuple[str, ...]:
    """Categories in order of first appearance among the concepts."""
    return tuple(dict.fromkeys(concepts[n][1] for n in columns(concepts)))


def reported_categories(present: Sequence[str]) -> tuple[str, ...]:
    """The paper's four categories, then the vocabulary's others as they come."""
    return tuple(dict.fromkeys((*PAPER_CATEGORIES, *present)))
