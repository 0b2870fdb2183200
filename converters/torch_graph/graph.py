"""Holds an exported PyTorch graph as plain data: nodes, their inputs, their outputs.

Nothing here needs PyTorch: `trace` writes a graph, `interpret` runs it in JAX.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

INPUT = "the images"  # name of the module's input among the values
OUTPUT = ""  # name of the module's own output among the outputs


@dataclasses.dataclass(frozen=True)
class Reference:
    """The value of another node, of a parameter, or of the input."""

    name: str


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of an operator.

    Attributes:
      name: name of its value, unique in the graph.
      operator: name of the operator without namespace and overload, e.g. 'conv2d'.
      arguments, options: positional and named arguments in the order and by the names
        of PyTorch's schema; values are numbers, strings, None, lists, References.
      where: dotted name of the module that calls it, with its class, for messages.
    """

    name: str
    operator: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    where: str


@dataclasses.dataclass(frozen=True)
class Graph:
    """A module's forward pass.

    Attributes:
      nodes: in the order of execution.
      outputs: name of a layer, or OUTPUT -> name of a node, parameter, or the input.
      kernels: parameters that are stored as [height, width, in, out], not as PyTorch's
        [out, in, height, width].
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    kernels: frozenset[str] = frozenset()


def references(value: Any) -> Iterator[str]:
    """Yields the names that a node's arguments refer to."""
    if isinstance(value, Reference):
        yield value.name
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def inputs(node: Node) -> list[str]:
    """Returns the names that a node refers to."""
    return [*references(node.arguments), *references(node.options)]


def substitute(value: Any, change: Callable[[str], Any]) -> Any:
    """Returns arguments with `change(name)` in place of every Reference."""
    if isinstance(value, Reference):
        return change(value.name)
    if isinstance(value, Mapping):
        return {key: substitute(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(substitute(item, change) for item in value)
    return value


def users(graph: Graph) -> dict[str, list[Node | None]]:
    """Returns name -> the nodes that use it; None stands for an output."""
    found: dict[str, list[Node | None]] = {}
    for node in graph.nodes:
        for name in inputs(node):
            found.setdefault(name, []).append(node)
    for name in graph.outputs.values():
        found.setdefault(name, []).append(None)
    return found


def without_unused(graph: Graph) -> Graph:
    """Returns the graph without nodes that no output needs."""
    needed = set(graph.outputs.values())
    kept = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            kept.append(node)
            needed.update(inputs(node))
    return dataclasses.replace(graph, nodes=tuple(reversed(kept)))
