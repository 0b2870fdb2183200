"""What belongs to the whole process is not changed for a while: threads see it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Set for a while and then set back, or read by setting it.
FORBIDDEN = {
    *("umask", "chdir", "fchdir", "putenv", "unsetenv", "setlocale"),
    *("redirect_stdout", "redirect_stderr", "catch_warnings", "setrecursionlimit"),
}
# A conversion reads its file and traces its module before it starts a thread.
ALLOWED = {
    ("converters/torch_files.py", "catch_warnings"),
    ("converters/torch_graph/trace.py", "catch_warnings"),
}


def changes(source: str) -> set[str]:
    """Names of calls, and 'environ' where it is assigned to."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found.add(getattr(node.func, "attr", getattr(node.func, "id", "")))
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found |= {"environ"} & {getattr(node.value, "attr", "")}
    return found & {*FORBIDDEN, "environ"}


def test_what_is_found():
    assert changes("import os\nos.umask(0)") == {"umask"}
    assert changes("os.environ['LC_ALL'] = 'C'") == {"environ"}
    assert not changes("os.environ['LC_ALL']")
    assert changes("with contextlib.redirect_stdout(file): pass") == {"redirect_stdout"}


def test_nothing_changes_the_state_of_the_process():
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for folder in ("jdissect", "converters")
        for path in (ROOT / folder).rglob("*.py")
        for name in changes(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED
