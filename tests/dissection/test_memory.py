"""A run larger than memory: what is resident stays flat."""

import re
import subprocess
import sys

import pytest

from tests.many_processes import ROOT


def grown(batches, features):
    """MB from a pass's second tenth to its last, at most, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--every=1000"]
    command += [f"--batches={batches}", f"--features={features}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(re.search(r"at most ([+-]\d+) MB", done.stdout)[1])


@pytest.mark.slow
@pytest.mark.parametrize("features", ["disk", "none"])
def test_resident_memory_is_flat(features):
    """132 MB of features and label maps go through."""
    assert grown(8_000, features) < 15


@pytest.mark.slow
def test_features_in_memory_show():
    """What the test above looks for: 66 MB, of which eight tenths are seen to grow."""
    assert grown(4_000, "memory") > 35
