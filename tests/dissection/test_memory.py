"""Memory of large runs: flat for many images, bounded for many units."""

import re
import subprocess
import sys

import pytest

from tests.devices import environment
from tests.many_processes import ROOT

BATCHES = 4_000


def grown(batches, features):
    """MB from a pass's second tenth to its last, at most, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--every=1000"]
    command += [f"--batches={batches}", f"--features={features}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(re.search(r"at most ([+-]\d+) MB", done.stdout)[1])


@pytest.mark.slow
@pytest.mark.parametrize("features", ["disk", "none"])
def test_resident_memory_is_flat(features):
    """66 MB of features and label maps go through."""
    assert grown(BATCHES, features) < 15


@pytest.mark.slow
def test_features_in_memory_show():
    """What the test above looks for: eight tenths of them are seen to grow."""
    assert grown(BATCHES, "memory") > 35


LATENTS = """
import pathlib, resource, sys
import numpy as np
import jdissect
from jdissect.report.pages import page
from jdissect.results.finished_run import open_run

units, images, concepts = 16_384, 1_000, 1_800
rng = np.random.default_rng(0)
maps = rng.normal(size=(images, 4, 4, 128)).astype(np.float32)
labels = rng.integers(0, concepts, (images, 1, 4, 4)).astype(np.int16)
labels = labels.repeat(2, axis=2).repeat(2, axis=3)
codes = {"encoder": rng.normal(size=(128, units)).astype(np.float32)}
found = jdissect.dissect(
    lambda _, maps: {"x": maps},
    None,
    maps,
    labels,
    concepts=[("-", "-"), *((f"thing {n}", "object") for n in range(concepts))],
    layers="x",
    batch_size=8,
    units={**codes, "activation": "topk", "k": 64},
)
folder = pathlib.Path(sys.argv[1])
found.save(folder)
written = page.write_report(open_run(folder))
assert found.intersection.shape == (units, concepts) and found.intersection.any()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, written.stat().st_size)
"""


@pytest.mark.slow
def test_16384_latents_take_less_than_8_gib(tmp_path):
    """Dissected, saved, loaded and shown, on two devices."""
    command = [sys.executable, "-c", LATENTS, str(tmp_path / "latents")]
    done = subprocess.run(
        command, env=environment(2), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kilobytes, page = map(int, done.stdout.split())
    assert kilobytes < 8 * 2**20 and page <= 15_000_000
