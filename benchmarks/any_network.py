"""How close are networks translated from PyTorch, and how fast?

    python -m benchmarks.any_network [--only=resnet50,vit] [--save]

Needs timm and transformers. `--save` writes the table to docs/any_network_parity.md.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import torch

from benchmarks.pytorch import networks
from benchmarks.support import torch_parity
from benchmarks.support.options import parse
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.runtime import command_line
from jdissect.runtime.devices import in_32_bits

OPTIONS = {
    "only": ("", "parts of names of networks, with commas between; empty: all"),
    "save": (False, "write docs/any_network_parity.md"),
}
PAGE = Path(__file__).parents[1] / "docs" / "any_network_parity.md"
TIMES = 5

_HEAD = f"""# Translated networks beside PyTorch

Networks with random weights, two random images. Each layer's outputs are compared with
PyTorch's in float32, relative to the largest value of the layer: "float32" is the
largest difference of all probed layers. "bfloat16" is the root mean square of the
differences at the layer where it is largest, with the translated network computed in
bfloat16, and with PyTorch's own network in that type. "Time" is that of the translated
network divided by PyTorch's, in float32 on a CPU: the fastest of {TIMES} runs in turn.
`python -m benchmarks.any_network --save` writes this page.

| network | pixels | layers | float32 | bfloat16: here | PyTorch | parameters | time |
|---|---|---|---|---|---|---|---|
"""


@in_32_bits
def row(name: str, network: networks.Network) -> str:
    """Compares one network; returns its line of the table."""
    torch.manual_seed(0)
    module = torch_parity.randomize(network.build())
    images = networks.example(network)
    translated, found = torch_parity.compare(module, images, network.layers)
    exact = max(value for value, _, _ in found.values())
    worst = max(found, key=lambda layer: found[layer][1])
    _, ours, theirs = found[worst]
    size = sum(array.nbytes for array in translated.params.values()) / 1e6
    ratio = _ratio(module, translated, images)
    return (
        f"| {name} | {network.side or '-'} | {len(network.layers)} | {exact:.1e} "
        f"| {ours:.1e} | {theirs:.1e} | {size:.0f} MB | {ratio:.2f} |"
    )


def _ratio(module, translated, images) -> float:
    run = jax.jit(translated.apply)
    params = jax.tree.map(jnp.asarray, translated.params)
    given = torch_parity.as_jax(images)
    jax.block_until_ready(run(params, given))
    ours, theirs = [], []
    for _ in range(TIMES):
        start = time.perf_counter()
        jax.block_until_ready(run(params, given))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        with torch.no_grad():
            module(images)
        theirs.append(time.perf_counter() - start)
    return min(ours) / min(theirs)


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    flags = parse(argv, "any_network", OPTIONS)
    if flags.save and flags.only:
        raise UserError("--save writes the table of all networks; leave out --only")
    only = flags.only.split(",") if flags.only else []
    known = networks.NETWORKS
    chosen = [name for name in known if not only or any(part in name for part in only)]
    if not chosen:
        raise UserError(
            f"--only: no network's name contains {printable(flags.only)!r}; there are: "
            f"{', '.join(known)}"
        )
    rows = []
    for name in chosen:
        rows.append(row(name, known[name]))
        print(rows[-1], flush=True)
    if flags.save:
        PAGE.write_text(_HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
