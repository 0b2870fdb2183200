"""The script for a GPU, tried on a CPU; and the comparison of its kernels."""

import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import equality, versus_torch
from benchmarks.support.options import parse
from jdissect.ops.accelerated import count_above
from jdissect.runtime import command_line
from tests.benchmarks.test_at_scale import weights  # noqa: F401

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "on_gpu.sh"
SMALL = ["--images=2", "--units=8", "--mask=9", "--concepts=5", "--rounds=1"]
# The last part needs networks of full size; its flags are looked at.
PYTHON = f"""#!/usr/bin/env bash
if [ "$2" = benchmarks.versus_torch ]; then shift 2; echo "flags $@"; exit; fi
exec {sys.executable} "$@"
"""


@pytest.mark.parametrize("name", [pytest.param("gpu", marks=pytest.mark.slow), "tpu"])
def test_kernels_are_compared_and_timed(name, capsys):
    argv = ["equality", f"--kernels={name}", *SMALL]
    assert command_line.entry(equality.main, argv) == 0
    output = capsys.readouterr().out
    assert output.count(": equal; ") == 3 and output.count(" us an image") == 3


def test_a_difference_is_told(monkeypatch, capsys):
    right = count_above.count_above
    monkeypatch.setattr(
        "jdissect.ops.accelerated.sketch.count_above", lambda *a: right(*a) + 1
    )
    assert equality.main(["equality", "--kernels=gpu", *SMALL]) == 1
    assert "sketch: DIFFERENT" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script(weights, tmp_path):  # noqa: F811
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(PYTHON)
    python.chmod(0o755)
    more = {"PYTHON": str(python), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for small in ("1", ""):
        if not small:  # only the flags of the parts as they run on a GPU
            python.write_text(PYTHON.replace('"$2" = benchmarks.versus_torch', "1"))
        done = subprocess.run(
            [SCRIPT, weights, "published", "images", out / small],
            env={**os.environ, **more, "SMALLEST": small},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("exit 0") == 3
        if small:
            assert "equal" in (out / small / "equality.txt").read_text()
            assert "whole run" in (out / small / "at_scale.txt").read_text()
        flags = (out / small / "versus_torch.txt").read_text().split()[1:]
        flags = " ".join(flags).replace("one ResNet-50", "five layers").split(" --")
        parse(
            ["x", *(f"--{flag.removeprefix('--')}" for flag in flags)],
            "versus_torch",
            versus_torch.OPTIONS,
        )
