"""Every figure's command starts, and says in a line what is wrong with it."""

import importlib
import pathlib

import pytest

from jdissect import study
from jdissect.base.errors import UserError
from jdissect.runtime import command_line

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
START = "    sys.exit(command_line.entry(main))\n"
COMMANDS = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if "__main__" in path.read_text() and path.stem != "versus_runs"
)
MIXUP = ["--config=configs/mixup.py", "--config.data.num_images=8"]
# As little as there is to measure; others have tests of their own.
SMALLEST = {
    "augment": ["--batch_size=1", "--side=32", "--height=48", "--width=64"],
    "coverage": ["--populations=1", "--draws=2"],
    "dtype": MIXUP,
    "pod_plan": [],
    "scaling": MIXUP,
    "sketch": ["--size=4096"],
    "stages": ["--model=resnet18", "--images=8", "--batch_size=2", "--rounds=1"],
    "startup": MIXUP,
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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_flag_is_answered_before_anything_is_measured(name, capfd):
    module = command(name)
    assert pathlib.Path(module.__file__).read_text().endswith(START)
    with pytest.raises((UserError, SystemExit)) as refused:
        module.main([f"benchmarks.{name}", "--nosuch=1", "--rounds=0"])
    output, error = capfd.readouterr()
    assert not output
    if refused.type is SystemExit:
        assert refused.value.code == 2
        assert "nosuch" in error or "are required" in error
    else:
        assert "nosuch" in str(refused.value)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_it_measures(name, quick, capsys, monkeypatch):
    module = command(name)
    if name == "scaling":
        monkeypatch.setattr(module, "LAYOUTS", ((1, 1), (2, 1)))
    assert module.main([f"benchmarks.{name}", *SMALLEST[name]]) == 0
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
