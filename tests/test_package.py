"""The package as users install it: a wheel, and an editable install of a clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import jdissect
from jdissect import __main__ as program

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "setup.py", "README.md")
FOLDERS = ("jdissect", "configs", "converters", "tests")
USE = """
import jdissect, os
from jdissect.configs import mixup
from jdissect.converters import choice
assert callable(jdissect.dissect) and callable(jdissect.load) and jdissect.__version__
assert mixup.get_config().model.weights == "shipped:mixup"
try:
    import jdissect.runs
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("a folder of the clone is taken for a module")
print(os.path.dirname(jdissect.__file__))
"""


def run(*command, cwd=None, code=0):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = list(map(str, command))
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def pip(python, *arguments):
    options = ["--quiet", "--disable-pip-version-check"]
    known = ["--no-deps", "--no-build-isolation", "--no-index"]
    run(*(sys.executable, "-m", "pip", "--python", python), *options,
        arguments[0], *known, *arguments[1:])  # fmt: skip


def environment(folder):
    """A new environment that has what jdissect needs, but not jdissect."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    place = next(folder.glob("lib/python*/site-packages"))
    (place / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone named jdissect, in a folder of its own, with a folder of runs."""
    pytest.importorskip("setuptools", reason="nothing to build with")
    folder = tmp_path_factory.mktemp("parent") / "jdissect"
    ignore = shutil.ignore_patterns("__pycache__", "*.npz", "weights")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    (folder / "runs" / "mixup").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    """The Python of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--wheel-dir", folder, clone)
    python = environment(folder / "environment")
    (file,) = folder.glob("*.whl")
    pip(python, "install", file)
    return python


@pytest.fixture(scope="module")
def editable(clone, tmp_path_factory):
    """The Python of an environment with the clone."""
    python = environment(tmp_path_factory.mktemp("editable") / "environment")
    pip(python, "install", "--editable", clone)
    return python


@pytest.mark.parametrize("place", ["the clone", "its parent", "elsewhere"])
def test_an_editable_install_works_from(place, clone, editable, tmp_path):
    folders = {"the clone": clone, "its parent": clone.parent, "elsewhere": tmp_path}
    cwd = folders[place]
    assert run(editable, "-c", USE, cwd=cwd).strip() == str(clone / "jdissect")
    assert "--workdir" in run(editable, "-m", "jdissect.main", "--help", cwd=cwd)


def test_a_wheel_works_from_anywhere(wheel, clone, tmp_path):
    home = next(wheel.parents[1].glob("lib/python*/site-packages"))
    for cwd in (tmp_path, clone.parent):
        assert run(wheel, "-c", USE, cwd=cwd).strip() == str(home / "jdissect")
    # Nothing else is at the top.
    names = {p.name for p in home.iterdir() if not p.name.startswith("__pycache__")}
    assert {name.partition("-")[0] for name in names} == {"jdissect", "others.pth"}
    package = home / "jdissect"
    assert (package / "py.typed").is_file()
    assert list((package / "report" / "pages" / "templates").glob("*.html"))
    assert (package / "configs" / "mixup.py").read_bytes() == (
        ROOT / "configs" / "mixup.py"
    ).read_bytes()
    assert (package / "converters" / "twins" / "resnet.py").is_file()


def test_commands_of_a_wheel(wheel, tmp_path):
    command = wheel.with_name("jdissect")
    assert run(command, "--version", cwd=tmp_path).strip() == jdissect.__version__
    text = run(command, "dissect", "--config=mixup:imagenet", "--help", cwd=tmp_path)
    assert "--config.data.source='tfds'" in text
    text = run(command, "dissect", "--config=moon", cwd=tmp_path, code=2)
    assert "config file moon does not exist; there are: baseline, cutmix" in text
    assert "--variant" in run(command, "study", "--help", cwd=tmp_path)
    # The configs of a study are found: the first weights that are missing are named.
    text = run(command, "study", "--weights=none", cwd=tmp_path, code=2)
    assert "none/baseline" in text
    assert "--checkpoint" in run(command, "convert", "resnet", "--help", cwd=tmp_path)


def test_every_command_is_listed(capsys):
    for name, module in program.commands().items():
        assert program.summary(module), name
    assert program.main(["jdissect", "--help"]) == 0
    out = capsys.readouterr().out
    files = {path.stem for path in (ROOT / "jdissect").glob("*.py")}
    files -= {"__init__", "__main__", "main"}
    for name in [*files, "dissect", "convert resnet"]:
        assert f"\n  {name} " in out


def test_public_names():
    assert set(dir(jdissect)) >= {"dissect", "load", "Result", "__version__"}
    assert all(hasattr(jdissect, name) for name in dir(jdissect))
    with pytest.raises(AttributeError, match="no attribute 'disect'"):
        jdissect.disect  # noqa: B018
