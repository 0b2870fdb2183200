"""Does the memory of a run grow with the number of images?

    python -m benchmarks.memory [--batches=50000] [--features=disk]

It should not. A whole dissection, saves included, of synthetic images; only the network
is a stub that passes its input on. Prints resident memory after each tenth of every
pass, beside the bytes of all features. What grows with the images would show.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.support import drawn
from benchmarks.support.options import parse
from jdissect.base.progress import Silent
from jdissect.dissection.engine import Dissection, Settings
from jdissect.dissection.resume import Journal
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices

BATCH, SIDE, UNITS, MASK = 4, 4, 64, 8
# So many that few images, too, are counted by block: by image, counters are as large as
# `group_counts.BY_IMAGE_ENTRIES` allows, and become resident one image after the other.
CONCEPTS = 40

OPTIONS = {
    "batches": (50_000, "Of features."),
    "features": (("disk", "none", "memory"), "Where they are kept."),
    "every": (2_000, "Steps from save to save."),
}


def resident() -> float:
    """Of this process, MB, without the pages of files that can be dropped."""
    fields = Path("/proc/self/statm").read_bytes().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize() / 1e6


def synthetic(count: int):
    """A `features.Read` of `count` images, drawn anew whenever they are read."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(97, SIDE, SIDE, UNITS)).astype(np.float32)
    labels = rng.integers(0, 5, (BATCH, 1, MASK, MASK)).astype(np.int32)

    return drawn.reader(count, BATCH, lambda index: (pool[index * 31 % 97], labels))


def measure(
    batches: int, features: str, every: int, tell=print
) -> dict[str, list[float]]:
    """Resident memory in MB after each tenth of every pass, by its name."""
    found = {}

    class Watched(Silent):
        def __call__(self, records, name, start=0):
            return watched(records, name)

    def watched(records, name):
        start, line = time.perf_counter(), found.setdefault(name, [])
        for done, record in enumerate(records, 1):
            yield record
            if done % -(-batches // 10) == 0:
                line.append(resident())
        cells = " ".join(f"{value:6.0f}" for value in line)
        tell(f"{name:14s} {time.perf_counter() - start:6.0f} s  {cells}")

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            layers=("x",), keep=features, folder=Path(folder) / "features"
        )
        engine = Dissection(
            lambda _, pixels: {"x": pixels},
            None,
            [("-", "-"), *((f"c{i}", "object") for i in range(CONCEPTS))],
            settings,
            Devices(),
            progress=Watched(),
            journal=Journal(Path(folder) / "saves", every=every, images_a_step=BATCH),
        )
        engine.run(synthetic(batches * BATCH), batches * BATCH)
    return found


def main(argv: list[str]) -> int:
    """Measures and prints."""
    options = parse(argv, "memory", OPTIONS)
    size = options.batches * BATCH * (SIDE * SIDE * UNITS * 4 + MASK * MASK * 2)
    print(f"features and label maps {size / 1e6:,.0f} MB, {options.features}")
    found = measure(options.batches, options.features, options.every)
    grown = max(line[-1] - line[1] for line in found.values())
    print(f"from a pass's second tenth to its last: at most {grown:+.0f} MB")
    return 0


if __name__ == "__main__":
    # So that `command_line.entry` leaves memory as it is had: what is freed goes back
    # to the system, and what stays shows.
    os.environ.setdefault("MALLOC_TOP_PAD_", "131072")
    sys.exit(command_line.entry(main))
