"""The notebooks of docs/ run, and are those that their sources make."""

import importlib.util
import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LIMIT = 300_000  # bytes


def builder():
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parts(notebook) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def pictures(cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_their_sources(name):
    stored = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    source = "\n" + (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert parts(stored) == builder().cells(source)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LIMIT
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert sum(map(pictures, code)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run(name):
    module = builder()
    for library in ("ipykernel", "pandas", *(["torch"] if name == "pytorch" else [])):
        pytest.importorskip(library)
    notebook = module.build(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    html = [
        output["data"].get("text/html", "")
        for cell in code
        for output in cell["outputs"]
        if "data" in output
    ]
    assert any("unique concepts" in text and "<img src=" in text for text in html)
