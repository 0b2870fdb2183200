"""Every figure's command starts, and says in a line what is wrong with it."""

import ast
import functools
import importlib
import pathlib
import re

import pytest

from jdissect import study
from jdissect.base.errors import UserError
from jdissect.runtime import command_line

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
README = FOLDER / "README.md"
START = "    sys.exit(command_line.entry(main))\n"
COMMANDS = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if "__main__" in path.read_text() and path.stem != "versus_runs"
)
# With the flags of a small network.
RUN = [
    "--config=configs/mixup.py",
    "--config.data.num_images=8",
    "--config.data.batch_size=2",
    "--config.segmenter.name=annotations",
    "--config.report=false",
]
# As little as there is to measure; others have tests of their own.
SMALLEST = {
    "augment": ["--batch_size=1", "--side=32", "--height=48", "--width=64"],
    "coverage": ["--populations=1", "--draws=2"],
    "dtype": RUN,
    "pod_plan": [],
    "scaling": RUN,
    "sketch": ["--size=4096"],
    "stages": ["--model=resnet18", "--images=8", "--batch_size=2", "--rounds=1"],
    "startup": RUN,
    "verification": ["--pairs=10", "--concepts=2"],
    "train_step": ["--model=resnet18", "--batch_size=2", "--rounds=1"],
}


def command(name):
    """The module; skipped where it needs a rival that is absent."""
    try:
        return importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "datasketches"):
            raise
        pytest.skip(f"{error.name} absent: nothing to compare with")


def test_every_file_at_the_top_is_a_command_that_answers_a_question():
    listed = re.findall(r"^\| (.*\?) \| `(\w+)`", README.read_text(), re.MULTILINE)
    found = {
        (ast.get_docstring(ast.parse(path.read_text())).splitlines()[0], path.stem)
        for path in FOLDER.glob("*.py")
        if path.stem != "__init__"
    }
    assert sorted(listed) == sorted(found)
    assert {name for _, name in found} == {n for n in COMMANDS if "." not in n}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_flag_is_answered_before_anything_is_measured(name, capfd):
    module = command(name)
    assert pathlib.Path(module.__file__).read_text().endswith(START)
    refused = functools.partial(is_refused, module.main, name)
    assert "nosuch" in refused("--nosuch=1")
    options = getattr(module, "OPTIONS", {})
    for flag, (default, _) in options.items():
        if not isinstance(default, str):
            assert flag in refused(f"--{flag}=nosuch")
        if type(default) is int and default > 0:
            assert refused(f"--{flag}=0") == f"--{flag} is 0; it must be at least 1"
    assert not capfd.readouterr().out


def is_refused(main, name, *flags):
    """The line that says why."""
    with pytest.raises(UserError) as refused:
        main([f"benchmarks.{name}", *flags])
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_flags_and_defaults(name, capsys):
    module = command(name)
    with pytest.raises(SystemExit) as ended:
        module.main([f"benchmarks.{name}", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert not ended.value.code and lines[0].startswith("usage: ")
    for flag, (default, _) in getattr(module, "OPTIONS", {"config": ("", "")}).items():
        if isinstance(default, (tuple, list)):
            default = default[0]
        start = f"  --{flag}" + f"={default}".lower() * (default != "")
        assert any(line.lower().startswith(start) for line in lines), flag


def test_what_a_command_needs_is_asked_for(tmp_path, capsys):
    needs = functools.partial(is_refused, command("at_scale").main, "at_scale")
    assert needs() == "--weights=PATH is needed; see --help"
    assert needs("--weights=no/such") == "--weights: no/such does not exist"
    assert "some of stem, layer1" in needs(f"--weights={tmp_path}", "--layers=stem,top")
    assert not capsys.readouterr().out


def test_a_table_of_some_networks_is_not_saved(monkeypatch, tmp_path):
    any_network = command("any_network")
    monkeypatch.setattr(any_network, "PAGE", tmp_path / "page.md")
    refused = functools.partial(is_refused, any_network.main, "any_network")
    assert "leave out --only" in refused("--save", "--only=resnet50")
    assert "no network's name contains 'nosuch'" in refused("--only=nosuch")
    assert not (tmp_path / "page.md").exists()


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_it_measures(name, quick, tiny_classifier, capsys, monkeypatch):
    module = command(name)
    if name == "scaling":
        monkeypatch.setattr(module, "LAYOUTS", ((2, 1),))
    if name == "startup":
        monkeypatch.setattr(module, "ROUNDS", 1)
    network = tiny_classifier if SMALLEST[name] is RUN else []
    assert module.main([f"benchmarks.{name}", *SMALLEST[name], *network]) == 0
    assert capsys.readouterr().out


@pytest.mark.slow
def test_loader_measures(drawn, capsys):
    flags = [f"--images={drawn.parent / 'images'}", f"--broden={drawn}"]
    argv = ["loader", *flags, "--repeat=1", "--rounds=1"]
    assert command("loader").main(argv) == 0
    assert capsys.readouterr().out.count("img/s") == 4


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["public"], indirect=True)
def test_upernet_measures(golden, published, upernet_folder, capsys):
    flags = [
        f"--published={published / 'upp-resnet50-upernet'}",
        f"--upernet={upernet_folder}",
        f"--images={golden / 'images'}",
    ]
    argv = ["upernet", *flags, "--count=1", "--rounds=1"]
    assert command("upernet").main(argv) == 0
    assert "times as fast as PyTorch" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["public"], indirect=True)
@pytest.mark.parametrize("form", ["best", "faithful"])
def test_pytorch_measures(form, golden, published, capsys):
    flags = [
        f"--resnet={published / 'resnet50' / 'model_best.pth.tar'}",
        f"--upernet={published / 'upp-resnet50-upernet'}",
        f"--color={published / 'color-resnet18dilated-ppm_deepsup'}",
        f"--images={golden / 'images'}",
    ]
    argv = ["pytorch.netdissect", *flags, "--count=1", f"--form={form}"]
    assert command("pytorch.netdissect").main(argv) == 0
    assert "unique concepts" in capsys.readouterr().out


@pytest.mark.slow
def test_two_studies_are_compared(quick, tmp_path, capsys):
    argv = ["study", f"--workdir={tmp_path}/study", "--noreport"]
    images = ["--config.data.num_images=4", "--config.data.batch_size=4"]
    assert command_line.entry(study.main, [*argv, *images]) == 0
    capsys.readouterr()
    folders = [f"--{flag}={tmp_path}/study" for flag in ("segmenter", "truth")]
    assert command("ground_truth").main(["ground_truth", *folders]) == 0
    output = capsys.readouterr().out
    assert output.count("1.000  100.0 %") == len(study.NAMES)
