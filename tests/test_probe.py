"""Batch sizes by measurement: python -m jdissect.probe"""

import pathlib
import re

import jax
import pytest

from jdissect import probe
from jdissect.configs import mixup
from jdissect.jobs import batch_size
from jdissect.runtime import command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({8: 1.0}, 8),
        ({1: 9.0, 2: 5.0, 4: 4.0, 8: 4.5}, 4),
        ({1: 9.0, 2: 4.1, 4: 4.0, 8: 3.99}, 2),  # nearly as fast, and smaller
    ],
)
def test_the_smallest_that_is_nearly_as_fast(times, expected):
    assert batch_size.choose(times) == expected


@pytest.mark.parametrize(
    "segmented", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_the_networks_of_a_config(segmented, small, tiny_classifier, tmp_path, capsys):
    """A small classifier, perhaps beside a segmenter; the config stays as it is."""
    config = mixup.get_config()
    weights, name, _ = (flag.partition("=")[2] for flag in tiny_classifier)
    config.model.weights, config.model.name = weights, name
    config.segmenter.name = "upernet" if segmented else "annotations"
    config.segmenter.upernet = str(small.upernet)
    config.cache.dir = str(tmp_path)
    before = config.to_json()
    found = batch_size.probe(config, sizes=(1, 2))
    keys = ["data.batch_size", "segmenter.batch_size"][: 1 + segmented]
    assert set(found) == set(keys)
    assert set(found.values()) <= {1, 2} and config.to_json() == before
    lines = re.findall(r"[0-9.]+ ms per image", capsys.readouterr().out)
    assert len(lines) == 2 * len(keys)


def test_memory_ends_the_probe(monkeypatch, capsys):
    def run(pixels, size):
        if size > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    found = batch_size._times(run, (2, 2), batch_size.SIZES, 1)
    assert list(found) == [1, 2, 4]
    assert "8  out of memory" in capsys.readouterr().out


def test_command_refuses(capsys):
    code = command_line.entry(
        probe.main,
        ["probe", f"--config={ROOT / 'configs' / 'mixup.py'}", "--config.dtype=f8"],
    )
    assert code == 2 and "dtype" in capsys.readouterr().err
