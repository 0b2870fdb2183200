"""Vocabularies of concepts: label number -> (name, category).

A vocabulary is a sequence of (name, category), indexed by label number. Number 0 means
"no label", and a number named '-' is never a concept. Names repeat across categories,
so the pair identifies a concept. Several numbers may share one pair (ADE20K's lists
contain such names): the concept is then the union of their pixels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# The paper's four categories always come first, in this order.
PAPER_CATEGORIES = ("object", "part", "material", "color")
NOTHING = "-"

Concepts = Sequence[tuple[str, str]]


def columns(concepts: Concepts) -> Int[np.ndarray, " concept"]:
    """Returns the first number of each concept, ascending: the result columns."""
    first = first_numbers(concepts)
    return np.flatnonzero((first == np.arange(len(first))) & (first > 0)).astype(
        np.int32
    )


def first_numbers(concepts: Concepts) -> Int[np.ndarray, " number"]:
    """Maps each number to the first one of the same concept, int32; 0 for no label."""
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
    """Returns the categories in order of first appearance among the concepts."""
    return tuple(dict.fromkeys(concepts[n][1] for n in columns(concepts)))


def column_table(concepts: Concepts) -> Int[np.ndarray, " number"]:
    """Maps each number to the column of its concept + 1, int32; 0 for no label."""
    numbers = columns(concepts)
    found = np.zeros(len(concepts), np.int32)
    found[numbers] = np.arange(1, len(numbers) + 1)
    return found[first_numbers(concepts)]


def category_of_columns(concepts: Concepts) -> Int[np.ndarray, " concept"]:
    """Returns the place in `categories` of each column's category, int32."""
    place = {name: number for number, name in enumerate(categories(concepts))}
    found = [place[concepts[number][1]] for number in columns(concepts)]
    return np.asarray(found, np.int32)


def reported_categories(present: Sequence[str]) -> tuple[str, ...]:
    """Returns the paper's four categories, then the vocabulary's others in order."""
    return tuple(dict.fromkeys((*PAPER_CATEGORIES, *present)))
