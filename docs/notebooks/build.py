"""Builds the notebooks of this folder: python docs/notebooks/build.py [NAME ...]

Each NAME.py is a notebook as text. `# %%` begins a cell, `# %% [markdown]` one of text,
whose lines begin with `# `. The notebook is run from its first cell to its last, and is
written with its outputs as NAME.ipynb. Needs nbclient, ipykernel, and the extras
`notebook` and `convert`.
"""

import pathlib
import sys
import tempfile

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
SECONDS = 1800  # for a cell


def cells(source: str) -> list[tuple[str, str]]:
    """Returns (kind, content) of each cell, 'code' or 'markdown', of a notebook."""
    found = []
    for part in source.split("\n# %%")[1:]:
        heading, _, body = part.partition("\n")
        body = body.strip("\n")
        if heading.strip() == "[markdown]":
            lines = (line.removeprefix("#") for line in body.split("\n"))
            text = "\n".join(line.removeprefix(" ") for line in lines)
            found.append(("markdown", text))
        else:
            found.append(("code", body))
    return found


def build(name: str) -> nbformat.NotebookNode:
    """Returns the notebook NAME, run in an empty folder.

    Raises:
      CellExecutionError: a cell failed.
    """
    notebook = nbformat.v4.new_notebook()
    source = "\n" + (HERE / f"{name}.py").read_text(encoding="utf-8")
    for number, (kind, content) in enumerate(cells(source)):
        make = {
            "code": nbformat.v4.new_code_cell,
            "markdown": nbformat.v4.new_markdown_cell,
        }[kind]
        notebook.cells.append(make(content, id=f"{name}-{number}"))
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        ).execute()
    for cell in notebook.cells:
        # A progress bar that has gone leaves an empty output.
        outputs = cell.get("outputs", [])
        outputs[:] = [each for each in outputs if not _is_empty(each)]
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return notebook


def _is_empty(output: nbformat.NotebookNode) -> bool:
    return output.get("data", {}).get("text/html") == ""


def main(names: list[str]) -> None:
    """Builds the notebooks of these names, by default all."""
    every = sorted(p.stem for p in HERE.glob("*.py") if p.stem != "build")
    for name in names or every:
        path = HERE / f"{name}.ipynb"
        nbformat.write(build(name), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
