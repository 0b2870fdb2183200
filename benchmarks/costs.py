"""How many FLOPs and bytes does every compiled step take?

    python -m benchmarks.costs            # beside what is recorded
    python -m benchmarks.costs --record   # a change on purpose: record it

Counted, not timed: times vary from run to run, counts do not.
`tests/benchmarks/test_costs.py` compares the counts with those recorded in
`tests/costs.json` and fails where one has grown by more than TOLERANCE. Each step is
counted twice:

- as it is written (`support.count`): `products`, `operations` and `bytes`, with
  every turn of every loop. These depend on neither the machine nor the compiler.
- as XLA compiled it for one CPU device: `flops` and `bytes accessed` by its own
  analysis of the optimised program, where a loop's body counts once, and `temporary`,
  the bytes of all buffers that are neither arguments nor results: what a map that is
  stored where none was shows up in. These hold for one minor version of JAX on one
  architecture, and are left out of the comparison on others.
"""

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.support import steps
from benchmarks.support.count import count
from benchmarks.support.options import parse
from jdissect.models.upernet import SIDE
from jdissect.runtime import command_line

RECORDED = Path(__file__).resolve().parents[1] / "tests" / "costs.json"
COMMAND = "python -m benchmarks.costs --record"
TOLERANCE = 0.05
OPTIONS = {"record": (False, f"Write tests/{RECORDED.name}.")}
_SHAPES = steps.Shapes(images=4)

STEPS: dict[str, Callable[[], steps.Step]] = {
    "classifier": lambda: steps.network({"name": "resnet50"}, 4, 224, ("layer4",)),
    "UPerNet": lambda: steps.network(steps.UPERNET, 1, SIDE),
    "colour network": lambda: steps.network(steps.COLOR, 1, SIDE),
    "quarters": lambda: steps.quarters(4, _SHAPES.mask),
    "top-k": lambda: steps.topk_step(_SHAPES),
    "sketch": lambda: steps.sketch_step(_SHAPES),
    "sweep": lambda: steps.sweep_step(_SHAPES),
    "intersections": lambda: steps.intersections_step(_SHAPES),
    "training": lambda: steps.training(8, 64),
}


def figures(step: steps.Step, compile: bool = True) -> dict[str, dict[str, float]]:
    """{'written': what the program says, 'compiled': what XLA makes of it}.

    Args:
      step: to count.
      compile: whether to; without there are only the figures of the program as written.
    """
    written = count(step.function, *step.arguments, trips=step.trips)
    if not compile:
        return {"written": dataclasses.asdict(written)}
    compiled = jax.jit(step.function).lower(*step.arguments).compile()
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return {
        "written": dataclasses.asdict(written),
        "compiled": {
            "flops": analysis["flops"],
            "bytes accessed": analysis["bytes accessed"],
            "temporary": memory.temp_size_in_bytes,
        },
    }


def compiler() -> dict[str, str]:
    """What figures of the compiled programs hold for."""
    return {
        "jax": ".".join(jax.__version__.split(".")[:2]),
        "backend": jax.default_backend(),
        "machine": platform.machine(),
    }


def same_compiler(record: dict[str, Any]) -> bool:
    """Whether the record's figures of compiled programs hold here."""
    return record["compiler"] == compiler()


def grown(
    name: str, found: dict[str, dict[str, float]], record: dict[str, Any]
) -> list[str]:
    """A line for each figure of a step that has grown.

    Args:
      name: name of the step.
      found: from `figures`.
      record: the content of `RECORDED`.
    """
    if name not in record["steps"]:
        return [f"{name}: has no record; {COMMAND}"]
    before = record["steps"][name]
    kinds = [kind for kind in found if kind != "compiled" or same_compiler(record)]
    return [
        f"{name}: {figure} ({kind}) was {before[kind][figure]:.4g} and is {now:.4g}, "
        f"{ratio(now, before[kind][figure]) - 1:+.0%}; if on purpose: {COMMAND}"
        for kind in kinds
        for figure, now in found[kind].items()
        if ratio(now, before[kind][figure]) > 1 + TOLERANCE
    ]


def ratio(now: float, before: float) -> float:
    """now / before, where both may be 0."""
    if before:
        return now / before
    return float("inf") if now else 1.0


def main(argv: list[str]) -> int:
    """Prints the figures, or records them."""
    options = parse(argv, "costs", OPTIONS)
    found = {}
    old = json.loads(RECORDED.read_bytes()) if RECORDED.exists() else {"steps": {}}
    for name, build in STEPS.items():
        found[name] = figures(build())
        for kind, numbers in found[name].items():
            for figure, now in numbers.items():
                line = f"{name:15s} {kind:9s} {figure:15s} {now:12.5g}"
                if name in old["steps"]:
                    before = old["steps"][name][kind][figure]
                    line += f"  {ratio(now, before) - 1:+8.2%} of {before:.5g}"
                print(line, flush=True)
    if options.record:
        record = {"compiler": compiler(), "steps": found}
        RECORDED.write_bytes((json.dumps(record, indent=1) + "\n").encode())
        print(f"written to {RECORDED.name}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(command_line.entry(main))
