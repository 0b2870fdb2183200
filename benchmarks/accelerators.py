"""What would a dissection's steps cost on a GPU or a TPU?

    make accelerators

compiles every step for chips that are described, not present, by the compilers that
would compile it there, and writes results/accelerators.md. Nothing is run. The
programs say how many kernels the host launches, for what it waits, and what they move;
arithmetic is counted as it is written (`support.count`).

The time is a roofline: the longer of bytes over bandwidth and arithmetic over rate,
with products at the matrix unit's rate and all else at the vector unit's, by the
published figures of `support.chips`. It takes no launches into account, so a step
should have few.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from benchmarks.support import accelerated_steps, chips, compiled_program, count
from benchmarks.support.options import parse
from benchmarks.support.steps import Step
from jdissect.base.atomic_files import write_whole
from jdissect.ops import forms
from jdissect.ops.accelerated.target import Target
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices

# Of a step of 32 images that counts; and on maps that are larger than the masks.
MOST_KERNELS, MOST_ON_LARGE_MAPS = 12, 14
# After the sketch of the default dissection (configs/mixup.py), 15 to 22 bits of a
# threshold are unknown, and 18 or fewer for 76 % of the units. A sweep of 8 slots finds
# 3: six are over all units, a seventh over a quarter of them, an eighth over 64 units
# of 2,048 (measured by tests/benchmarks/test_accelerators.py).
SWEEPS = 6 + 1 / 4 + 64 / 2048
LARGE_POD = ("v5e", "v5e:16x16")
_RESULTS = Path(__file__).parent / "results"
RESULT = _RESULTS / "accelerators.json"
_TITLES = ("step", "kernels", "waits", "loops", "gathers, scatters")
_TITLES += ("moved, MB", "G operations", "GFLOP of products", "memory, GB")
_TITLES += ("compiled in, s", "by roofline, us an image")

OPTIONS = {
    "chips": (list(chips.CHIPS), "Chips, with commas between."),
    "save": (False, "Write results/accelerators.md and .json."),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step costs on a chip.

    Attributes:
      program: what the compiled program consists of.
      written: arithmetic as it is written.
      temporary, total: bytes of memory.
      compiling: seconds.
      microseconds: by roofline, of an image.
    """

    program: compiled_program.Program
    written: count.Count
    temporary: int
    total: int
    compiling: float
    microseconds: float


def all_steps() -> dict[str, tuple[Any, tuple[Any, ...], int]]:
    """Returns {name: (function, shapes of its arguments, images)} of all that counts.

    The functions take the kernels of the platform they are compiled for.
    """
    return {
        name: (step.function, step.arguments, accelerated_steps.IMAGES)
        for name, step in accelerated_steps.all_counting().items()
    }


def in_a_pod(devices: Sequence[Any]) -> dict[str, compiled_program.Program]:
    """Compiles what counts as all devices of a slice run it, each on its own images."""
    spread, found = Devices(devices=devices), {}

    def stacked(array):
        return jax.ShapeDtypeStruct((len(devices), *array.shape), array.dtype)

    for name, step in accelerated_steps.counting(*accelerated_steps.LAST).items():
        one = accelerated_steps.of_target(step, Target("tpu"))
        state, *batch = jax.tree.map(stacked, one.arguments)
        compiled = spread.spmd(_Shard(one.function)).lower(state, batch, ()).compile()
        found[name] = compiled_program.read(compiled.as_text())
    return found


def pod(chip: chips.Chip) -> tuple[list[str], str]:
    """Returns the faults of what counts on a large slice, and a line about it."""
    devices = chips.devices(chip, LARGE_POD[1])
    programs = in_a_pod(devices)
    wrong = [
        f"{LARGE_POD[1]}, {name}: {program.collectives} collectives, "
        f"{program.waits} waits"
        for name, program in programs.items()
        if program.collectives or program.waits
    ]
    line = (
        f"On the {len(devices)} chips of a {LARGE_POD[1]} slice: "
        f"{sum(p.collectives for p in programs.values())} collectives, "
        f"{sum(p.waits for p in programs.values())} waits of the host in "
        f"{', '.join(programs)}."
    )
    return wrong, line


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A step of one device, whose shard of the batch has an axis of length 1 more."""

    function: Callable[..., Any]

    def __call__(self, state, batch, constants):
        del constants
        return self.function(state, *jax.tree.map(lambda array: array[0], batch))


def cost(
    step: Step,
    chip: chips.Chip,
    device: Any,
    network_of: int = 0,
    float32: bool = False,
) -> Cost:
    """Compiles a step for a chip and returns what it costs.

    Args:
      step: counts images, or is a network.
      chip, device: what it is compiled for.
      network_of: the images of a network; 0 for a step that counts.
      float32: whether its products are of float32.
    """
    target = Target("tpu" if chip.kernels == "tpu" else "gpu")
    one = accelerated_steps.of_target(step, target)
    sharding = SingleDeviceSharding(device)
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        step.arguments,
    )
    start = time.perf_counter()
    # A state is counted on where it is.
    options = {} if network_of else {"donate_argnums": 0}
    with chips.described(chip):
        lowered = jax.jit(one.function, **options).lower(*arguments)
    compiled = lowered.compile()
    compiling = time.perf_counter() - start
    memory = compiled.memory_analysis()
    program = compiled_program.read(compiled.as_text())
    written = count.count(one.function, *step.arguments, trips=step.trips)
    seconds = max(
        program.bytes / chip.bandwidth,
        written.products / (chip.float32 if float32 else chip.matrix)
        + written.operations / chip.lanes,
    )
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes
    total += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return Cost(
        program,
        written,
        memory.temp_size_in_bytes,
        total,
        compiling,
        seconds * 1e6 / (network_of or accelerated_steps.IMAGES),
    )


def faults(found: Cost, chip: chips.Chip, name: str) -> list[str]:
    """Returns what a step must not have on an accelerator, and has."""
    program, wrong = found.program, []
    most = MOST_ON_LARGE_MAPS if name.endswith("conv1") else MOST_KERNELS
    if chip.kernels == "gpu" and program.kernels > most:
        wrong.append(f"{program.kernels} kernels, more than {most}")
    if name == accelerated_steps.LABEL_MAPS:
        wrong.clear()  # of many kernels, beside a network's
    for what in ("waits", "loops", "conditionals", "collectives"):
        if getattr(program, what):
            wrong.append(f"{getattr(program, what)} {what}")
    elsewhere = name.startswith("top-k") or name == accelerated_steps.LABEL_MAPS
    if chip.kernels == "tpu" and not elsewhere:
        for what in ("gathers", "scatters"):
            if getattr(program, what):
                wrong.append(f"{getattr(program, what)} {what}")
    if found.total > chip.memory:
        wrong.append(f"{found.total / 1e9:.1f} GB of memory")
    return [f"{chip.name}, {name}: {each}" for each in wrong]


def _networks(chip):
    """Returns the networks, and what makes label maps, in the form for a chip."""
    # In float32 a TPU's compiler takes many minutes for products of three passes.
    dtypes = ["bfloat16", *(["float32"] if chip.float32 else [])]
    with forms.compiled_for(chip.kernels):
        steps = [accelerated_steps.networks(dtype) for dtype in dtypes]
        steps.append(accelerated_steps.segmentation())
    return {
        name: (
            dataclasses.replace(step, function=_Form(step.function, chip.kernels)),
            n,
        )
        for some in steps
        for name, (step, n) in some.items()
    }


@dataclasses.dataclass(frozen=True)
class _Form:
    """A network that is traced in the form for a platform."""

    function: Callable[..., Any]
    platform: str

    def __call__(self, *arguments):
        with forms.compiled_for(self.platform):
            return self.function(*arguments)


def row(name: str, found: Cost) -> list[str]:
    """Returns a step's line of the table."""
    program, written = found.program, found.written
    return [
        name,
        f"{program.kernels}",
        f"{program.waits}",
        f"{program.loops}",
        f"{program.gathers}, {program.scatters}",
        f"{program.bytes / 1e6:.0f}",
        f"{written.operations / 1e9:.2f}",
        f"{written.products / 1e9:.1f}",
        f"{found.total / 1e9:.2f}",
        f"{found.compiling:.0f}",
        f"{found.microseconds:.1f}",
    ]


def summary(costs: dict[str, Cost]) -> str:
    """Returns the time of counting an image of the last layer, in words."""
    each = {name: costs[name].microseconds for name in costs if ", " not in name}
    total = each["sketch"] + SWEEPS * each["sweep"]
    total += each["intersections"] + each["top-k"]
    return (
        f"Counting an image of the last layer, with {SWEEPS:.2f} sweeps of "
        f"{accelerated_steps.SLOTS} slots: {total:.0f} microseconds."
    )


def main(argv):
    flags = parse(argv, "accelerators", OPTIONS)
    lines, wrong, saved = [], [], {}
    for name in flags["chips"].value:
        chip = chips.CHIPS[name]
        try:
            device = chips.devices(chip)[0]
        except chips.NoCompiler as error:
            print(f"{error}; see make accelerators", file=sys.stderr)
            return 2
        lines += [f"## {name}", "", f"| {' | '.join(_TITLES)} |", "|---" * 11 + "|"]
        costs = {}
        for step_name, step in accelerated_steps.all_counting().items():
            costs[step_name] = cost(step, chip, device)
            wrong += faults(costs[step_name], chip, step_name)
            lines.append(f"| {' | '.join(row(step_name, costs[step_name]))} |")
            print(lines[-1], flush=True)
        for step_name, (step, images) in _networks(chip).items():
            found = cost(step, chip, device, images, "float32" in step_name)
            if step_name == accelerated_steps.LABEL_MAPS:
                wrong += faults(found, chip, step_name)
            lines.append(f"| {' | '.join(row(step_name, found))} |")
            print(lines[-1], flush=True)
        lines += ["", summary(costs), ""]
        if name == LARGE_POD[0]:
            wrong_there, line = pod(chip)
            wrong += wrong_there
            lines += [line, ""]
        saved[name] = {n: round(each.microseconds, 2) for n, each in costs.items()}
        print(lines[-2], flush=True)
    for line in wrong:
        print(line, file=sys.stderr)
    if flags["save"].value and not wrong:
        text = "\n".join([_head(), *lines])
        write_whole(_RESULTS / "accelerators.md", text.encode())
        content = {"microseconds an image, by roofline": saved}
        write_whole(RESULT, (json.dumps(content, indent=2) + "\n").encode())
    return 1 if wrong else 0


def _head() -> str:
    images = accelerated_steps.IMAGES
    return f"""# Steps compiled for accelerators

By `python -m benchmarks.accelerators` under JAX {jax.__version__}, which says how; no
accelerator was there. A step counts {images} images on masks of 56x56 pixels, with
1,799 concepts, of which an image has 64, in 6 label maps. ResNet-50 takes {images}
images of 224 pixels, UPerNet and the color network one of 480.
"""


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
