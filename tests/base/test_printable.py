"""Names as messages show them."""

import pytest

from jdissect.base.printable import listed, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("street/ärmel 1.jpg", "street/ärmel 1.jpg"),
        ("日本　語.png", "日本　語.png"),  # an ideographic space is to be seen
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x1b[0m\x7f\0", "\\x1b[31mred\\x1b[0m\\x7f\\x00"),
        ("\x9b2J", "\\x9b2J"),  # an escape of eight bits
        ("gpj.\u202egnp", "gpj.\\u202egnp"),
        ("a\u2028b\u2066c\ufeff", "a\\u2028b\\u2066c\\ufeff"),
        ("\udcff.png", "\\udcff.png"),
        ("\U000e0041", "\\U000e0041"),
        ("C:\\photos", "C:\\photos"),
        ("", ""),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_long_names_lose_their_middle():
    assert printable("a" * 200) == "a" * 200
    shown = printable("first" + "a" * 10**6 + "last.png")
    assert len(shown) == 200
    assert shown.startswith("firsta") and shown.endswith("alast.png") and "..." in shown
    assert len(printable("\n" * 500, 20)) == 20


def test_listed():
    assert listed(["a", "b\n"]) == "a, b\\n"
    assert listed([f"{n}" for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
    assert listed([f"{n}" for n in range(7)], 2) == "0, 1 and 5 more"
    assert listed([]) == ""
