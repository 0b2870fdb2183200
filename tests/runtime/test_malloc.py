"""Memory that is freed stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from jdissect.runtime import malloc
print(malloc.keep_freed())
np.ones(1 << 24)  # 128 MiB, freed
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment.pop("GLIBC_TUNABLES", None)
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, **more},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = found.stdout.split()
    return kept == "True", int(faults)


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")


@glibc
def test_freed_memory_is_used_again():
    kept, faults = run()
    assert kept
    assert faults < 100  # of 32,768 pages


@glibc
def test_the_environment_has_the_last_word():
    kept, faults = run(MALLOC_TOP_PAD_="0")
    assert not kept
    assert faults > 60  # at least one for every 2 MiB


def test_entry_points_keep_it(monkeypatch):
    from jdissect.runtime import command_line, malloc

    calls = []
    monkeypatch.setattr(malloc, "keep_freed", lambda: calls.append(1))
    assert command_line.entry(lambda argv: 0, ["program"]) == 0
    assert calls
