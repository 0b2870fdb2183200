"""Names and equal formulas."""

import pytest

from jdissect.formulas.formula import (
    AND,
    NOT,
    OR,
    Step,
    canonical,
    concept,
    concept_names,
    name,
)

NAMES = ("bed", "sofa", "red", "blue")


def formula(first, *steps):
    return (*concept(first), *(Step(*step) for step in steps))


@pytest.mark.parametrize(
    "text, made",
    [
        ("", ()),
        ("sofa", formula(1)),
        ("bed AND blue", formula(3, (AND, 0))),
        ("bed AND NOT red", formula(0, (NOT, 2))),
        ("bed OR sofa OR blue", formula(3, (OR, 1), (OR, 0))),
        ("bed OR (sofa AND NOT red)", formula(1, (NOT, 2), (OR, 0))),
        ("(bed OR sofa) AND NOT red", formula(1, (OR, 0), (NOT, 2))),
        ("bed AND blue AND NOT sofa AND NOT red",
         formula(0, (NOT, 2), (AND, 3), (NOT, 1))),
    ],
)  # fmt: skip
def test_names(text, made):
    assert name(made, NAMES) == text


def test_order_does_not_matter():
    first = formula(0, (OR, 1), (NOT, 2), (NOT, 3))
    assert canonical(first) == canonical(formula(1, (OR, 0), (NOT, 3), (NOT, 2)))
    assert canonical(first) != canonical(formula(1, (OR, 0), (NOT, 3), (AND, 2)))
    assert canonical(formula(0, (NOT, 1))) != canonical(formula(1, (NOT, 0)))


def test_a_name_of_two_categories():
    names = concept_names(["red", "sea", "sea"], ["color", "object", "scene"])
    assert list(names) == ["red", "sea (object)", "sea (scene)"]
