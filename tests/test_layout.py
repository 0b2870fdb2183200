"""Every file at the top is a command, and folders import only what is below them."""

import ast
import importlib
from pathlib import Path

import pytest

import jdissect

PACKAGE = Path(jdissect.__file__).parent
# From the top down.
FOLDERS = (
    *("library", "report", "verification", "jobs", "training", "ablation"),
    *("evaluation", "chance_level", "formulas"),
    *(
        "dissection",
        "analysis",
        "segmenters",
        "datasets",
        "results",
        "checkpoints",
        "scenes",
    ),
    *("models", "augment", "data", "runtime", "ops", "base"),
)
# They stand beside the package.
BESIDE = {"configs", "converters"}
# What imports upwards: (file, folder).
UPWARD = {
    ("runtime/command_line.py", "configs"),  # where --config=NAME is
    ("jobs/replay.py", "configs"),  # defaults of keys that an older run lacks
    ("data/scenes.py", "scenes"),  # an old name that still works
}


def imported(path: Path) -> set[str]:
    """Folders, or modules at the top, that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "jdissect" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_folders_import_what_is_below_them():
    upward = set()
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        folder = name.split("/")[0]
        if folder in BESIDE:
            continue
        floor = FOLDERS.index(folder)
        for other in imported(path):
            if other not in FOLDERS or FOLDERS.index(other) < floor:
                upward.add((name, other))
    assert upward == UPWARD


def test_folders_are_known():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS) | BESIDE


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_a_file_at_the_top_is_a_command(path):
    if path.stem != "__init__":
        module = importlib.import_module(f"jdissect.{path.stem}")
        assert callable(module.main) and module.__doc__
