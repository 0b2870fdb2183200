"""The documentation's programs run, its links lead somewhere, its flags exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def programs():
    for page in PAGES:
        found = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if found:
            # A page's programs go on from each other.
            yield pytest.param("\n".join(found), id=page.name)


@pytest.mark.parametrize("program", programs())
def test_programs_run(program, tmp_path, monkeypatch, capsys):
    if "import torch" in program:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "documentation", "exec"), {"__name__": "documentation"})
    assert "total" in capsys.readouterr().out


def test_a_hook_before_an_activation_in_place():
    """docs/pytorch_checkpoint.md keeps the maps as they were when the hook saw them."""
    pytest.importorskip("torch")
    page = (ROOT / "docs" / "pytorch_checkpoint.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    program = program.partition("labels = ")[0].replace("network[1]", "network[0]")
    names: dict = {}
    exec(program.replace("ReLU()", "ReLU(inplace=True)"), names)
    assert names["maps"].shape == (120, 16, 16, 24) and names["maps"].min() < 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_exist(page):
    for name in re.findall(
        r"-m ((?:jdissect|converters|benchmarks)[\w.]*)", page.read_text()
    ):
        path = ROOT.joinpath(*name.rstrip(".").split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), (
            name
        )
