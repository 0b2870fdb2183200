"""Defines a formula over concepts: its steps, its name, and where it holds.

A formula is built from left to right, as those of Mu and Andreas (2020): it begins with
a concept, and each further step adds one by OR, AND or AND NOT. ((a OR b) AND NOT c) is
such a formula, (a AND b) OR (c AND d) is not.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

OR, AND, NOT = 0, 1, 2
OPERATORS = ("or", "and", "and_not")  # names by number, as users give them


class Step(NamedTuple):
    """One step of a formula.

    Attributes:
      operator: OR, AND or NOT (which is AND NOT); OR for the first step.
      column: column of the concept.
    """

    operator: int
    column: int


Formula = tuple[Step, ...]  # () for no formula

# A canonical form: a column, or (operator, parts added, parts taken away).
_Tree = Any


def concept(column: int) -> Formula:
    """Returns the formula of a single concept."""
    return (Step(OR, column),)


def holds(
    formula: Formula, mask_of: Callable[[int], Bool[np.ndarray, "..."]]
) -> Bool[np.ndarray, "..."]:
    """Returns where a formula holds.

    Args:
      formula: at least one step.
      mask_of: returns where a concept holds, by column.
    """
    mask = mask_of(formula[0].column)
    for operator, column in formula[1:]:
        other = mask_of(column)
        if operator == OR:
            mask = mask | other
        else:
            mask = mask & (other if operator == AND else ~other)
    return mask


def canonical(formula: Formula) -> _Tree:
    """Returns a form that is equal for formulas that differ only in their order.

    Parts of a chain of the same operator are sorted. Equal forms can be hashed.
    """
    tree: _Tree = formula[0].column
    for operator, column in formula[1:]:
        kind = OR if operator == OR else AND
        if not isinstance(tree, tuple) or tree[0] != kind:
            tree = (kind, (tree,), ())
        _, added, taken = tree
        if operator == NOT:
            taken = tuple(sorted((*taken, column)))
        else:
            added = tuple(sorted((*added, column), key=_order))
        tree = (kind, added, taken)
    return tree


def _order(part: _Tree) -> tuple[bool, Any]:
    """Puts single concepts before chains."""
    return isinstance(part, tuple), part


def name(formula: Formula, names: Sequence[str]) -> str:
    """Returns a formula for people, such as "bed OR (sofa AND NOT red)"; '' for none.

    Args:
      formula: the formula.
      names: names by column, see `concept_names`.
    """
    return _text(canonical(formula), names) if formula else ""


def _text(tree: _Tree, names: Sequence[str]) -> str:
    if not isinstance(tree, tuple):
        return names[tree]
    kind, added, taken = tree
    parts = [
        f"({_text(part, names)})" if isinstance(part, tuple) else _text(part, names)
        for part in added
    ]
    parts += [f"NOT {names[column]}" for column in taken]
    return (" OR " if kind == OR else " AND ").join(parts)


def concept_names(concepts: Sequence[str], categories: Sequence[str]) -> list[str]:
    """Returns the names in formulas: with the category where a name has several."""
    times = Counter(concepts)
    return [
        f"{text} ({category})" if times[text] > 1 else text
        for text, category in zip(concepts, categories, strict=True)
    ]
