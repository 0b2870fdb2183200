"""Reads from a compiled program's text what the host launches, and what that moves.

On a GPU each operation of the entry computation, but for those that only name data, is
a kernel that the host launches; a loop of known length launches its body's kernels each
time, and before each turn of one of unknown length, and at a conditional, the host
waits for the device. A TPU runs the whole program by itself; the same count says how
many parts it has.
"""

import dataclasses
import re

_KERNELS = {
    *("fusion", "custom-call", "scatter", "sort", "copy", "reduce", "convolution"),
    *("dot", "dynamic-update-slice", "transpose", "concatenate", "gather", "pad"),
    *("reduce-window", "select-and-scatter", "dynamic-slice", "broadcast", "slice"),
    *("add", "convert", "reverse", "iota", "select"),
}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
_COLLECTIVES += ("reduce-scatter",)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_SHAPE = re.compile(r"\b(\w+)\[([\d,]*)\]")
_LINE = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled program consists of.

    Attributes:
      kernels: launched per call, those in loops as often as they run.
      waits: number of times the host waits for the device.
      loops: loops of unknown length.
      conditionals, gathers, scatters, collectives: such operations in the text, also
        within fusions.
      bytes: read and written by the kernels.
    """

    kernels: int
    waits: int
    loops: int
    conditionals: int
    gathers: int
    scatters: int
    collectives: int
    bytes: int


def read(text: str) -> Program:
    """Returns what a compiled program consists of.

    Args:
      text: its optimized HLO, from `compiled.as_text()`.
    """
    computations, entry = _computations(text)
    kernels, waits, moved = _launched(computations, entry)

    def number(*names):
        return sum(len(re.findall(rf" {name}(?:-start)?\(", text)) for name in names)

    whiles = [line for lines in computations.values() for line in lines]
    whiles = [line for line in whiles if re.search(r" while\(", line)]
    return Program(
        kernels=kernels,
        waits=waits,
        loops=sum("known_trip_count" not in line for line in whiles),
        conditionals=number("conditional"),
        gathers=number("gather"),
        scatters=number("scatter"),
        collectives=number(*_COLLECTIVES),
        bytes=moved,
    )


def _computations(text):
    found, name, entry = {}, None, None
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            name = head.group(2)
            found[name] = []
            entry = name if head.group(1) else entry
        elif line.startswith("}"):
            name = None
        elif name:
            found[name].append(line.strip())
    return found, entry


def _launched(computations, name):
    """Returns the (kernels, waits, bytes) of one call of a computation."""
    kernels = waits = moved = 0
    sizes = {}
    for line in computations[name]:
        parts = _LINE.match(line)
        if not parts:
            continue
        result, shape, operation, rest = parts.groups()
        sizes[result] = _size(shape)
        if operation in _KERNELS:
            kernels += 1
            moved += _moved(line, sizes[result], rest, sizes, computations)
        elif operation == "while":
            known = re.search(r"known_trip_count\W+n\W+(\d+)", line)
            turns = int(known.group(1)) if known else 1
            for part in ("body", "condition"):
                inner = re.search(part + r"=%?([\w.\-]+)", line).group(1)
                found = _launched(computations, inner)
                kernels, waits, moved = (
                    before + turns * more
                    for before, more in zip((kernels, waits, moved), found, strict=True)
                )
            waits += 0 if known else turns
        elif operation in ("call", "conditional"):
            inner = re.findall(r"(?:to_apply|calls|_computation)=%?([\w.\-]+)", line)
            for group in re.findall(r"branch_computations=\{([^}]*)\}", line):
                inner += [name.strip().lstrip("%") for name in group.split(",")]
            found = [_launched(computations, one) for one in inner]
            dearest = max(found, default=(0, 0, 0))
            kernels, waits = kernels + dearest[0], waits + dearest[1]
            moved += dearest[2]
            waits += operation == "conditional"
    return kernels, waits, moved


def _size(shape: str) -> int:
    total = 0
    for kind, sides in _SHAPE.findall(shape):
        size = _BYTES.get(kind, 0)
        for side in filter(None, sides.split(",")):
            size *= int(side)
        total += size
    return total


def _moved(line: str, written: int, rest: str, sizes, computations) -> int:
    """Returns the bytes of a kernel's operands and results.

    What is changed in place is as large as the change, three times: two reads, a write.
    """
    names = re.findall(r"%([\w.\-]+)", rest.partition(")")[0])
    read = [sizes.get(name, 0) for name in names]
    inner = re.search(r"calls=%?([\w.\-]+)", line)
    body = "\n".join(computations.get(inner.group(1), [])) if inner else line
    in_place = "output_to_operand_aliasing" in line or re.search(
        r" (scatter|dynamic-update-slice)\(", body
    )
    if in_place and written in read:
        read.remove(written)
        return 3 * sum(read)
    return written + sum(read)
