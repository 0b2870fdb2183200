"""Runs a `graph.Graph` in JAX: one function of parameters and images."""

from collections.abc import Mapping
from typing import Any

from jdissect.converters.torch_graph import graph as graphs
from jdissect.converters.torch_graph.operators import OPERATORS
from jdissect.converters.torch_graph.values import Kernel, Maps, Untranslated, plain

from jdissect.base.errors import UserError
from jdissect.base.printable import printable


def check(graph: graphs.Graph) -> None:
    """Checks that every operator has a translation.

    Raises:
      UserError: one has none; the message names it and where it stands.
    """
    for node in graph.nodes:
        if node.operator not in OPERATORS:
            more = sum(n.operator not in OPERATORS for n in graph.nodes) - 1
            rest = f" (and {more} more calls of such operators)" if more else ""
            raise UserError(
                f"operator {printable(node.operator)!r} of PyTorch has no translation; "
                f"it stands in {printable(node.where)}{rest}"
            )


def run(graph: graphs.Graph, params: Mapping[str, Any], images: Any) -> dict[str, Any]:
    """Runs a graph.

    Args:
      graph: graph whose operators are translated.
      params: name -> array of what the graph refers to.
      images: [batch, height, width, channel]; an input of another rank as in PyTorch.

    Returns:
      name of an output -> array in PyTorch's order.

    Raises:
      UserError: an operator is called with options that have no translation.
    """
    values: dict[str, Any] = {
        name: Kernel(array) if name in graph.kernels else array
        for name, array in params.items()
    }
    values[graphs.INPUT] = Maps(images) if images.ndim == 4 else images
    for node in graph.nodes:
        values[node.name] = call(node, values)
    return {name: plain(values[node]) for name, node in graph.outputs.items()}


def call(node: graphs.Node, values: Mapping[str, Any]) -> Any:
    """Returns the value of one node; `values` has those that it refers to."""
    arguments = graphs.substitute(node.arguments, values.__getitem__)
    options = graphs.substitute(node.options, values.__getitem__)
    try:
        return OPERATORS[node.operator](*arguments, **options)
    except Untranslated as error:
        reason = str(error)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        first = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {first}"
    except NotImplementedError as error:
        reason = str(error)
    raise UserError(
        f"operator {printable(node.operator)!r} of PyTorch cannot be translated as it "
        f"is called in {printable(node.where)}: {printable(reason)}"
    )
