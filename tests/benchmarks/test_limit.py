"""Floors are below what the programs do; records say where they were made."""

import json

import pytest

from benchmarks import limit
from benchmarks.support import ceilings, floors, record, steps
from benchmarks.support.count import Count, count

SHAPES = steps.Shapes(images=1, units=256)


@pytest.mark.parametrize(
    "name, most",
    [("topk", 20), ("sketch", 6.5), ("sweep", 3), ("intersections", 1.5)],
)
def test_no_program_does_less_than_its_floor(name, most):
    """And as it is written, it does not do `most` times as much.

    The sketch compares in 8 bits, which a floor counts a quarter, and writes three
    operations a comparison where processors have two.
    """
    step = getattr(steps, f"{name}_step")(SHAPES)
    written = count(step.function, *step.arguments, trips=step.trips)
    least = getattr(floors, name)(SHAPES)
    assert least.operations <= written.operations <= most * least.operations
    assert 0 < least.bytes <= written.bytes


def test_floors_by_hand():
    """2,048 units, 7x7 to 56x56: 40 edges, 14 of 98 words of each of 40 concepts."""
    shapes = steps.Shapes()
    pixels = 2048 * 56 * 56
    up = 2048 * 3 * (56 * 56 + 9 * 56)
    assert floors.upsampling(shapes) == up
    assert floors.sketch(shapes).operations == up + 20 * pixels
    words = 3 * 14 * 40 * 2048
    planes = 2 * 6 * 40 * 56 * 56
    assert floors.intersections(shapes).operations == up + 2 * pixels + words + planes


def test_floor_is_the_longest_of_three():
    best = {
        "matrix product": 100.0,
        "comparisons": 10.0,
        "bit counts": 20.0,
        "copy": 5.0,
    }
    assert limit.floor(Count(300, 20, 5), best) == (3, "products")
    assert limit.floor(Count(300, 80, 5), best) == (4, "operations")
    assert limit.floor(Count(300, 80, 50), best) == (10, "bytes")


def test_rates_are_medians():
    best = {"copy": ceilings.Ceiling(lambda: None, 6.0)}
    assert limit.rates(best, {"copy": [1.0, 2.0, 9.0]}) == {"copy": 3.0}


def test_command_names_no_folders():
    argv = ["limit.py", "--weights=/some/where/r50", "--save", "--json=/x/y.json"]
    assert limit.command(argv) == "python -m benchmarks.limit --weights=r50 --save"


def test_records_are_read_back(tmp_path):
    rows = [{"stage": "a", "ms": 1.2345}, {"stage": "bcd", "ms": 12345.6}]
    files = tmp_path / "x" / "a.json", tmp_path / "x" / "a.md"
    written = record.write(
        "a",
        rows,
        title="A title",
        command="a command",
        notes=["a note"],
        versions={"torch": "2.1"},
        json_file=files[0],
        markdown_file=files[1],
    )
    assert written == list(files)
    found = json.loads(files[0].read_text())
    assert found["rows"] == rows and found["notes"] == ["a note"]
    assert found["environment"] == {**record.environment(), "torch": "2.1"}
    lines = files[1].read_text().splitlines()
    assert lines[0] == "# A title" and lines[2].startswith("`a command` on ")
    assert "torch 2.1" in lines[2] and found["environment"]["date"] in lines[2]
    assert lines[4:8] == ["| stage | ms |", "| --- | ---: |", "| a | 1.23 |"] + [
        "| bcd | 12346 |"
    ]
    assert lines[-1] == "- a note"
    assert record.text(rows).splitlines() == ["stage     ms", "a       1.23"] + [
        "bcd    12346"
    ]
