"""How long does a run take before its first step?

    python -m benchmarks.startup --config=configs/mixup.py [--config.KEY=VALUE ...]

Starts `python -m jdissect.main` anew each time, with a compilation cache that is warm
after the first, and stops it after its first step (aim: 5 s). Then, in this process,
the time to hand a step of no work to the devices, with the counters of a layer of 2,048
units and 1,800 concepts as its state.
"""

import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from jdissect.base.errors import UserError
from jdissect.ops import iou
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices

ROUNDS = 5
_UNTIL_FIRST_STEP = """
import os, sys
from jdissect.dissection import resume
resume.Journal._is_due = lambda self: os._exit(77)
from jdissect.runtime import command_line
from jdissect import main
sys.exit(command_line.entry(main.main, ["jdissect.main", *sys.argv[1:]]))
"""


def first_step(arguments: list[str], cache: str) -> float:
    """Seconds of a fresh process until its first step is handed over."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _UNTIL_FIRST_STEP, *arguments]
        command += [f"--workdir={folder}/run", f"--config.cache.dir={cache}"]
        start = time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode != 77:
            if done.stderr.startswith("error: "):
                raise UserError(done.stderr.removeprefix("error: ").strip())
            raise RuntimeError(done.stderr)
        return time.perf_counter() - start


def dispatch() -> float:
    """Milliseconds to start a step."""
    devices = Devices()
    step = devices.spmd(lambda state, batch, constants: state)
    state = devices.states(iou.empty(1, 1800, 4, 2048))
    batch = devices.scatter({"valid": np.ones(32 * len(devices), bool)})
    times = []
    for number in range(220):
        start = time.perf_counter()
        state = step(state, batch, np.int32(0))
        if number >= 20:
            times.append(time.perf_counter() - start)
        jax.block_until_ready(state)
    return 1000 * statistics.median(times)


def main(argv: list[str]) -> int:
    """Measures and prints."""
    command_line.parse(command_line.define(argv, {}, {}), argv)
    with tempfile.TemporaryDirectory() as cache:
        cold = first_step(argv[1:], cache)
        warm = [first_step(argv[1:], cache) for _ in range(ROUNDS)]
    print(f"first step, nothing compiled yet   {cold:6.2f} s")
    low, high = min(warm), max(warm)
    median = statistics.median(warm)
    print(f"first step, compiled before        {median:6.2f} s ({low:.2f}-{high:.2f})")
    print(f"handing a step to the devices      {dispatch():6.3f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
