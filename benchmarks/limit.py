"""How far is every stage from what the machine could do?

    python -m benchmarks.limit                      # random weights and images
    python -m benchmarks.limit --weights=DIR --upernet=DIR --color=DIR

For each stage: the work that cannot be avoided (`support.floors`), the time in which
the machine's best rates (`support.ceilings`), measured here, would do it, and how
long it takes. The floor is the longest of three: products of networks at the rate of a
large matrix product; other operations at that of comparing or of counting bits in
registers, whichever is higher; bytes at that of copying. `written` is the work of the
program as it is written (`support.count`; a loop of unknown length by estimate) over
the work that cannot be avoided: the rest of `over floor` is the compiler's and the
machine's. `XLA` is XLA's count of a network's arithmetic over ours; it leaves out the
products with the zeros around a map. Ceilings and stages run in turn, `--rounds` times,
and medians count; `fastest` is the fastest run over the floor at the fastest rates, for
a machine that others use too.

A stage starts with its arguments on the devices. Not here: decoding (bound by the
processor, see `benchmarks.loader`) and carrying features between host and device.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.support import ceilings, limit_stages, record
from benchmarks.support.count import Count
from benchmarks.support.limit_stages import Stage
from benchmarks.support.options import parse
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices, network_devices

UNITS = {
    "matrix product": "GFLOP/s",
    "comparisons": "G comparisons and additions a second",
    "bit counts": "G operations a second",
    "copy": "GB/s, reading and writing",
}


OPTIONS = {
    "model": ("resnet50", "Architecture."),
    "layer": ("layer4", "Layer to probe."),
    "weights": ("", "The model's checkpoint; '' is random."),
    "upernet": ("", "Checkpoint; '' is random."),
    "color": ("", "Checkpoint; '' is random."),
    "dtype": (("float32", "bfloat16"), "Of networks."),
    "batch_size": (16, "Images a device a step."),
    "mask_size": (56, "Side of the mask grid."),
    "concepts": (40, "Concepts an image, random."),
    "rounds": (5, "Medians are over these."),
    "json": ("", "File to write."),
    "markdown": ("", "File to write."),
    "save": (False, "Write both to benchmarks/results."),
}


class Measured(NamedTuple):
    """Seconds of every run, by name."""

    ceilings: dict[str, list[float]]
    stages: dict[str, list[float]]


def measure(
    best: dict[str, ceilings.Ceiling], work: list[Stage], rounds: int
) -> Measured:
    """Runs everything in turn; the first round, which compiles, does not count."""
    found = Measured({name: [] for name in best}, {each.name: [] for each in work})
    for number in range(rounds + 1):
        for table, runs in (
            (found.ceilings, {name: ceiling.run for name, ceiling in best.items()}),
            (found.stages, {each.name: each.run for each in work}),
        ):
            for name, run in runs.items():
                seconds = _timed(run)
                if number:
                    table[name].append(seconds)
    return found


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def rates(
    best: dict[str, ceilings.Ceiling],
    seconds: dict[str, list[float]],
    typical: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Operations and bytes a second by ceiling."""
    return {name: best[name].work / typical(each) for name, each in seconds.items()}


def floor(work: Count, best: dict[str, float]) -> tuple[float, str]:
    """(seconds, what takes them) of the work at the best rates."""
    operations = max(best["comparisons"], best["bit counts"])
    times = {
        "products": work.products / best["matrix product"],
        "operations": work.operations / operations,
        "bytes": work.bytes / best["copy"],
    }
    bound = max(times, key=times.get)
    return times[bound], bound


def row(
    stage: Stage,
    seconds: list[float],
    best: dict[str, float],
    fastest: dict[str, float],
) -> dict[str, Any]:
    """A line of the table, for an image.

    Args:
      stage: what was measured.
      seconds: of every run.
      best: rates, as medians.
      fastest: rates of the fastest runs.
    """
    least, bound = floor(stage.floor, best)
    took = statistics.median(seconds) / stage.images
    undisturbed = min(seconds) / stage.images / floor(stage.floor, fastest)[0]
    needed = getattr(stage.floor, bound)
    return {
        "stage": stage.name,
        "images": stage.images,
        "GFLOP": stage.floor.products / 1e9,
        "Gop": stage.floor.operations / 1e9,
        "MB": stage.floor.bytes / 1e6,
        "bound by": bound,
        "floor, ms": least * 1e3,
        "measured, ms": took * 1e3,
        "over floor": took / least,
        "fastest": undisturbed,
        "written": getattr(stage.written, bound) / needed,
        "XLA": stage.lowered / stage.written.products if stage.lowered else "",
    }


def command(argv: list[str]) -> str:
    """The command line, for others: folders by their names."""
    kept = [a for a in argv[1:] if not a.startswith(("--json", "--markdown"))]
    short = [flag.partition("=")[::2] for flag in kept]
    words = [f"{key}={Path(value).name}" if value else key for key, value in short]
    return " ".join(["python -m benchmarks.limit", *words])


def main(argv: list[str]) -> int:
    """Measures, prints and writes."""
    options = parse(argv, "limit", OPTIONS)
    networks, counters = network_devices("shard_map")
    networks = Devices(devices=networks.devices[:1])
    if jax.default_backend() != "cpu":
        counters = networks
    best = {
        "matrix product": ceilings.matrix_product(networks, options.dtype),
        "comparisons": ceilings.comparisons(counters),
        "bit counts": ceilings.bit_counts(counters),
        "copy": ceilings.copies(counters),
    }
    work = [*limit_stages.of_networks(options, networks)]
    work += limit_stages.passes(options, counters)
    found = measure(best, work, options.rounds)
    found_rates = rates(best, found.ceilings)
    fastest = rates(best, found.ceilings, min)
    rows = [row(s, found.stages[s.name], found_rates, fastest) for s in work]
    notes = [
        f"{name}: {rate / 1e9:.4g} (at best {fastest[name] / 1e9:.4g}) {UNITS[name]}"
        for name, rate in found_rates.items()
    ]
    notes.append(
        f"An image each; {options.dtype} networks; {options.model} {options.layer}, "
        f"mask {options.mask_size}, {options.concepts} concepts an image; medians of "
        f"{options.rounds} rounds."
    )
    print(record.in_words(record.environment()), end="\n\n")
    print(record.text(rows), end="\n\n")
    print("\n".join(notes))
    if options.save or options.json or options.markdown:
        written = record.write(
            "limit",
            rows,
            title="Every stage and what the machine could do",
            command=command(argv),
            notes=notes,
            json_file=options.json,
            markdown_file=options.markdown,
        )
        print("written:", *(file.name for file in written))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
