"""Vocabularies: a label number stands for a (name, category).

A vocabulary is a sequence of (name, category) by number. Number 0 is "nothing", and a
number named '-' is never a concept. Names repeat across categories, so a concept's
identity is the pair. Several numbers may carry one pair (ADE20K's lists hold such
names): the concept is the union of them all.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# The paper's four categories come first and always, in this order.
PAPER_CATEGORIES = ("object", "part", "material", "color")
NOTHING = "-"

Concepts = Sequence[tuple[str, str]]


def columns(concepts: Concepts) -> Int[np.ndarray, " concept"]:
    """The first number of each concept, ascending: columns of every result array."""
    first = first_numbers(concepts)
    return np.flatnonzero((first == np.arange(len(first))) & (first > 0)).astype(
        np.int32
    )


def first_numbers(concepts: Concepts) -> Int[np.ndarray, " number"]:
    """For each number the first one of the same concept, int32; 0 for nothing."""
    first: dict[tuple[str, str], int] = {}
    return np.asarray(
        [
            first.setdefault((name, category), number)
            if number and name != NOTHING
            else 0
            for number, (name, category) in enumerate(concepts)
        ],
        dtype=np.int32,
    )


def categories(concepts: Concepts) -> tuple[str, ...]:
    """Categories in order of first appearance among the concepts."""
    return tuple(dict.fromkeys(concepts[n][1] for n in columns(concepts)))


def reported_categories(present: Sequence[str]) -> tuple[str, ...]:
    """The paper's four categories, then the vocabulary's others as they come."""
    return tuple(dict.fromkeys((*PAPER_CATEGORIES, *present)))
