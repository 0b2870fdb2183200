"""How long would the study take on ImageNet's training images?

    python -m benchmarks.pod_plan

Prints the table of docs/pods.md; nothing is run. Counted from this code's shapes:
arithmetic of the networks (ResNet-50: XLA's count of the compiled program; UPerNet and
the colour network: 183 and 52 GFLOP of the plain forms less what the cheaper ones
save), pixels and words that are counted, sizes of counters, features and exchanges.
Assumed, not measured: the chip's rates, and that a host's core decodes as many JPEGs a
second as `benchmarks.loader` measured here.
"""

import dataclasses
import sys

from benchmarks.support.options import parse
from jdissect.ops import refine
from jdissect.ops.edges import EDGES
from jdissect.results.group_counts import BLOCKS
from jdissect.runtime import command_line

IMAGES = 1_281_167
NETWORKS = 5
PASSES = 5  # network, sketch, two sweeps, intersections
JPEG_BYTES = 110_000
CONCEPTS, PRESENT = 1_825, 40  # in all; in an image
MASK = 56 * 56
WORDS = MASK // 32
# ResNet-50 at 224 pixels: units and side of conv1, layer1 .. layer4.
LAYERS = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
UNITS = sum(units for units, _ in LAYERS)
FEATURES = 2 * sum(units * side**2 for units, side in LAYERS)  # bytes, bfloat16
GFLOP_CLASSIFIER, GFLOP_UPERNET, GFLOP_COLOR = 8.0, 132.0, 33.0

OPTIONS = {
    "tflops": (110.0, "Of a network on a chip."),
    "tops": (1.0, "Of counting on a chip."),
    "chips_a_host": (4, "Chips a host."),
    "cores_a_host": (120, "Cores a host."),
    "gb_a_host": (400, "Memory of a host."),
    "jpegs_a_core": (350.0, "Decoded a second and core."),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What is assumed.

    Attributes:
      tflops: that a network reaches, in bfloat16.
      tops: comparisons and additions of the vector unit, 10**12 a second.
      chips_a_host, cores_a_host, gb_a_host, jpegs_a_core: properties of a host.
    """

    tflops: float
    tops: float
    chips_a_host: int
    cores_a_host: int
    gb_a_host: int
    jpegs_a_core: float


def plan(chips: int, chip: Chip) -> dict[str, str]:
    """A column of the table."""
    hosts = max(1, chips // chip.chips_a_host)
    share = IMAGES / chips
    keep = FEATURES * IMAGES / hosts < 0.5 * chip.gb_a_host * 1e9
    forwards = 1 if keep else PASSES
    networks = NETWORKS * forwards * GFLOP_CLASSIFIER
    labels = GFLOP_UPERNET + GFLOP_COLOR
    pixels = UNITS * MASK
    counting = pixels * (EDGES * 2 + 2 * 8 + 8) + UNITS * PRESENT * WORDS * 3
    seconds = {
        "labels": share * labels / (chip.tflops * 1e3),
        "networks": share * networks / (chip.tflops * 1e3),
        "counting": share * NETWORKS * counting / (chip.tops * 1e12),
    }
    reads = NETWORKS * forwards
    jpegs = IMAGES * reads / (hosts * chip.cores_a_host * chip.jpegs_a_core)
    total = max(sum(seconds.values()), jpegs)
    read = reads * JPEG_BYTES * IMAGES
    counters = 4 * BLOCKS * UNITS * (CONCEPTS + 1 + 5)
    # Sums travel as 4 bytes a number (those of pixels, over 2^32, as 16); two sweeps,
    # and the small states.
    sent = 4 * UNITS * (BLOCKS * (CONCEPTS + 6) + 2 * refine.SLOTS)
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
        + (", kept" if keep else ", not kept"),
        "label maps a host": f"{12 * MASK * IMAGES / hosts / 1e9:,.0f} GB",
        "sent by a host, a network": f"{sent / 1e6:,.0f} MB",
        "sent, an image": f"{NETWORKS * hosts * sent / IMAGES / 1e3:,.1f} KB",
        "input, in all": f"{read / total / 1e9:,.2f} GB/s",
        "input, a host": f"{read / total / hosts / 1e6:,.0f} MB/s",
    }


def main(argv: list[str]) -> int:
    """Prints the table."""
    options = parse(argv, "pod_plan", OPTIONS)
    chip = Chip(**{name: options[name].value for name in OPTIONS})
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
