"""Text files are UTF-8 whatever the locale: nothing is left to its encoding."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder in ("jdissect", "converters", "configs", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# Where the mode stands, by the function's name.
_MODE = {"open": 0, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}
_TEXT = {"read_text": 0, "write_text": 1, "TextIOWrapper": 1}
_PROCESSES = {"run", "Popen", "check_output", "check_call", "call"}


def by_the_locale(source: str) -> list[int]:
    """Lines of calls whose text is in the encoding of the locale."""
    return sorted(
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _is_by_the_locale(node)
    )


def _is_by_the_locale(call):
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if method else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if method else ""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    if name in _TEXT:
        return len(call.args) <= _TEXT[name]
    if name in _PROCESSES and owner == "subprocess":
        return bool({"text", "universal_newlines"} & keywords.keys())
    if name not in _MODE or owner in (
        "Image",
        "zipped",
        "self._opener",
        "self._zip",
        "tarfile",
        "archive",
    ):
        return False
    if owner == "os" and name == "open":
        return False
    # The built-in `open` has the file first, a path's method has not.
    place = 1 if (name == "open" and not method) or owner == "io" else _MODE[name]
    mode = keywords.get("mode", call.args[place] if len(call.args) > place else None)
    if mode is None:
        return not name.endswith("TemporaryFile")  # those are binary by default
    return not (isinstance(mode, ast.Constant) and "b" in mode.value)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("open(path, 'rb')", False),
        ("path.open()", True),
        ("path.open('ab')", False),
        ("path.open(mode='w')", True),
        ("os.fdopen(number, 'w')", True),
        ("os.open(path, flags)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, encoding='utf-8')", False),
    ],
)
def test_what_is_found(source, found):
    assert by_the_locale(source) == [1] * found


def test_every_text_file_is_utf8():
    odd = {
        str(path.relative_to(ROOT)): lines
        for path in FILES
        if (lines := by_the_locale(path.read_text(encoding="utf-8")))
    }
    assert len(FILES) > 100 and not odd
