"""How long would the study take on ImageNet's training images?

    python -m benchmarks.pod_plan

Prints the table of docs/pods.md; nothing is run. Counting takes what the programs that
`benchmarks.accelerators` compiled for the chip take by roofline. Counted from this
code's shapes: arithmetic of the networks (ResNet-50: XLA's count of the compiled
program; UPerNet and the colour network: 183 and 52 GFLOP of the plain forms less what
the cheaper ones save), sizes of counters, features and exchanges.
Assumed, not measured: the share of the chip's peak that networks reach, that counting
reaches its roofline, and that a host's core decodes as many JPEGs a second as
`benchmarks.loader` measured here.
"""

import dataclasses
import json
import sys

from benchmarks import accelerators
from benchmarks.support.accelerated_steps import MORE_SLOTS
from benchmarks.support.chips import CHIPS
from benchmarks.support.options import parse
from jdissect.base.errors import UserError
from jdissect.ops.edges import EDGES
from jdissect.results.group_counts import BLOCKS
from jdissect.runtime import command_line

IMAGES = 1_281_167
NETWORKS = 5
SWEEPS = 4  # of MORE_SLOTS slots
PASSES = 3 + SWEEPS  # network, sketch, sweeps, intersections
JPEG_BYTES = 110_000
CONCEPTS = 1_825
MASK = 56 * 56
# ResNet-50 at 224 pixels: units and side of conv1, layer1 .. layer4.
LAYERS = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
UNITS = sum(units for units, _ in LAYERS)
FEATURES = 2 * sum(units * side**2 for units, side in LAYERS)  # bytes, bfloat16
GFLOP_CLASSIFIER, GFLOP_UPERNET, GFLOP_COLOR = 8.0, 132.0, 33.0

OPTIONS = {
    "chip": ("v5e", f"One of {', '.join(CHIPS)}."),
    "share": (0.4, "Share of the chip's peak in bfloat16 that networks reach."),
    "chips_a_host": (4, "Chips a host."),
    "cores_a_host": (120, "Cores a host."),
    "gb_a_host": (400, "Memory of a host."),
    "jpegs_a_core": (350.0, "Decoded a second and core."),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What is assumed.

    Attributes:
      chip: name of the chip.
      share: share of the chip's peak in bfloat16 that networks reach.
      chips_a_host, cores_a_host, gb_a_host, jpegs_a_core: properties of a host.
    """

    chip: str
    share: float
    chips_a_host: int
    cores_a_host: int
    gb_a_host: int
    jpegs_a_core: float


def counting(chip: str, on_chips: bool) -> float:
    """Returns the microseconds of counting an image of all layers, by roofline.

    Args:
      chip: name of the chip.
      on_chips: whether the features stay on the chips; if not, sweeps have more slots.
    """
    stored = json.loads(accelerators.RESULT.read_text(encoding="utf-8"))
    (by_chip,) = stored.values()
    sweeps = accelerators.SWEEPS if on_chips else SWEEPS
    times = dict.fromkeys(("sketch", "intersections", "top-k"), 1.0)
    times["sweep" if on_chips else f"sweep of {MORE_SLOTS} slots"] = sweeps
    if missing := set(times) - set(by_chip[chip]):
        raise UserError(
            f"{accelerators.RESULT} lacks {', '.join(missing)}; run make accelerators"
        )
    return sum(
        times.get(name.partition(", ")[0], 0) * microseconds
        for name, microseconds in by_chip[chip].items()
    )


def plan(chips: int, chip: Chip) -> dict[str, str]:
    """A column of the table."""
    hosts = max(1, chips // chip.chips_a_host)
    share = IMAGES / chips
    of_chip = CHIPS[chip.chip]
    on_chips = FEATURES * IMAGES / chips < 0.5 * of_chip.memory
    keep = on_chips or FEATURES * IMAGES / hosts < 0.5 * chip.gb_a_host * 1e9
    forwards = 1 if keep else PASSES
    networks = NETWORKS * forwards * GFLOP_CLASSIFIER
    labels = GFLOP_UPERNET + GFLOP_COLOR
    rate = chip.share * of_chip.matrix
    seconds = {
        "labels": share * labels * 1e9 / rate,
        "networks": share * networks * 1e9 / rate,
        "counting": share * NETWORKS * counting(chip.chip, on_chips) / 1e6,
    }
    reads = NETWORKS * forwards
    jpegs = IMAGES * reads / (hosts * chip.cores_a_host * chip.jpegs_a_core)
    total = max(sum(seconds.values()), jpegs)
    read = reads * JPEG_BYTES * IMAGES
    counters = 4 * BLOCKS * UNITS * (CONCEPTS + 1 + 5)
    # Sums travel as 4 bytes a number (those of pixels, over 2^32, as 16); the sweeps,
    # and the small states.
    sent = 4 * UNITS * (BLOCKS * (CONCEPTS + 6) + SWEEPS * MORE_SLOTS)
    sent += 16 * UNITS * (EDGES + 13)
    return {
        "hosts": f"{hosts}",
        "labels, once": f"{seconds['labels']:,.0f} s",
        "networks": f"{seconds['networks']:,.0f} s ({forwards} a network)",
        "counting": f"{seconds['counting']:,.0f} s",
        "decoding, beside them": f"{jpegs:,.0f} s",
        "the slower of both": f"{total / 60:,.1f} min",
        "counters a chip": f"{counters / 1e6:,.0f} MB",
        "features a host": f"{FEATURES * IMAGES / hosts / 1e9:,.0f} GB"
        + (", on chips" if on_chips else ", kept" if keep else ", not kept"),
        "label maps a host": f"{12 * MASK * IMAGES / hosts / 1e9:,.0f} GB",
        "sent per host and network": f"{sent / 1e6:,.0f} MB",
        "sent per image": f"{NETWORKS * hosts * sent / IMAGES / 1e3:,.1f} KB",
        "input, in all": f"{read / total / 1e9:,.2f} GB/s",
        "input, a host": f"{read / total / hosts / 1e6:,.0f} MB/s",
    }


def main(argv: list[str]) -> int:
    """Prints the table."""
    options = parse(argv, "pod_plan", OPTIONS)
    chip = Chip(**{name: options[name].value for name in OPTIONS})
    if chip.chip not in CHIPS:
        raise UserError(f"--chip is '{chip.chip}'; it is one of {', '.join(CHIPS)}")
    plans = {chips: plan(chips, chip) for chips in (8, 64, 512)}
    print("| chips | " + " | ".join(map(str, plans)) + " |")
    print("|---|" + "---|" * len(plans))
    for row in plans[8]:
        print(
            f"| {row} | " + " | ".join(column[row] for column in plans.values()) + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
