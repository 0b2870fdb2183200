"""Rewrites a graph for inference: folded batch normalization, constants, kernels.

None of it changes what the graph computes, up to rounding.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jdissect.converters.torch_graph import graph as graphs
from jdissect.converters.torch_graph import interpret
from jdissect.converters.torch_graph.values import plain

Params = dict[str, np.ndarray]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
# Computed once for all batches; larger ones would only make the file larger.
_LARGEST_CONSTANT = 2**24  # elements


def simplify(graph: graphs.Graph, params: Params) -> tuple[graphs.Graph, Params]:
    """Returns a graph that computes the same in less time, and its parameters."""
    for step in (_constants, _fold_batch_norms, _reorder_kernels):
        graph, params = step(graph, params)
        graph = graphs.without_unused(graph)
        used = {name for node in graph.nodes for name in graphs.inputs(node)}
        used |= set(graph.outputs.values())
        params = {name: array for name, array in params.items() if name in used}
    return graph, params


def _constants(graph: graphs.Graph, params: Params) -> tuple[graphs.Graph, Params]:
    """Computes what depends on parameters alone: `folded.NAME` among them."""
    params, known, kept = dict(params), dict[str, Any](params), []
    for node in graph.nodes:
        given = graphs.inputs(node)
        if node.operator != "expand" and all(name in known for name in given):
            values = {name: jax.tree.map(jnp.asarray, known[name]) for name in given}
            found = jax.device_get(jax.tree.map(plain, interpret.call(node, values)))
            leaves = jax.tree.leaves(found)
            arrays = all(isinstance(leaf, np.ndarray) for leaf in leaves)
            if arrays and sum(leaf.size for leaf in leaves) <= _LARGEST_CONSTANT:
                known[node.name] = found
                continue
        kept.append(node)
    needed = {name for node in kept for name in graphs.inputs(node)}
    names = {}
    for name in needed | set(graph.outputs.values()):
        if name in known and name not in params:
            names[name] = _unused(f"folded.{name.lstrip('%')}", params)
            params[names[name]] = np.asarray(known[name])

    def renamed(name):
        return graphs.Reference(names.get(name, name))

    nodes = tuple(
        dataclasses.replace(
            node,
            arguments=graphs.substitute(node.arguments, renamed),
            options=graphs.substitute(node.options, renamed),
        )
        for node in kept
    )
    outputs = {key: names.get(name, name) for key, name in graph.outputs.items()}
    return dataclasses.replace(graph, nodes=nodes, outputs=outputs), params


def _unused(name: str, params: Params) -> str:
    while name in params:
        name += "_"
    return name


def _fold_batch_norms(
    graph: graphs.Graph, params: Params
) -> tuple[graphs.Graph, Params]:
    """Folds batch normalization into the convolution before it.

    y = (conv(x, kernel) + b - mean) * s + bias, where s = weight / sqrt(var + eps), is
    conv(x, kernel * s) + (b - mean) * s + bias. Computed in float64, rounded once. A
    convolution whose own output, or whose kernel, is used elsewhere stays as it is.
    """
    params = dict(params)
    uses = graphs.users(graph)
    by_name = {node.name: node for node in graph.nodes}
    replaced: dict[str, graphs.Node] = {}
    for norm in graph.nodes:
        source = by_name.get(_name(norm.arguments[0])) if norm.arguments else None
        if norm.operator != "batch_norm" or source is None:
            continue
        if source.operator not in _CONVOLUTIONS or len(uses[source.name]) > 1:
            continue
        image, kernel, bias, *rest = [*source.arguments, None][: max(3, _n(source))]
        given = [_name(value) for value in norm.arguments[1:5]]
        known = [params.get(name) for name in given]
        if _name(kernel) not in params or len(uses[_name(kernel)]) > 1:
            continue
        if known[2] is None or known[3] is None:
            continue
        folded = _folded(
            params[_name(kernel)], params.get(_name(bias)), known, norm.arguments[7]
        )
        name = f"folded.{_name(kernel).removesuffix('weight')}bias"
        shift = _unused(name, params)
        params[_name(kernel)], params[shift] = folded
        arguments = (image, kernel, graphs.Reference(shift), *rest)
        replaced[norm.name] = dataclasses.replace(
            norm, operator=source.operator, arguments=arguments, options=source.options
        )
    nodes = tuple(replaced.get(node.name, node) for node in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes), params


def _n(node: graphs.Node) -> int:
    return len(node.arguments)


def _name(value: Any) -> str:
    return getattr(value, "name", "")


def _folded(kernel, bias, statistics, epsilon) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel [out, ...] and the bias of both together."""
    scale, offset, mean, variance = statistics
    factor = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    factor = factor if scale is None else factor * scale
    shift = -mean if bias is None else bias - mean
    shift = shift * factor
    shift = shift if offset is None else shift + offset
    shape = (-1,) + (1,) * (kernel.ndim - 1)
    scaled = kernel * factor.reshape(shape)
    return scaled.astype(np.float32), shift.astype(np.float32)


def _reorder_kernels(
    graph: graphs.Graph, params: Params
) -> tuple[graphs.Graph, Params]:
    """Stores kernels of convolutions as [height, width, in, out], as XLA does."""
    uses = graphs.users(graph)
    kernels = set()
    for name, array in params.items():
        nodes = uses.get(name, [])
        if array.ndim == 4 and all(_is_kernel_of(name, node) for node in nodes):
            kernels.add(name)
    params = {
        name: np.ascontiguousarray(array.transpose(2, 3, 1, 0))
        if name in kernels
        else array
        for name, array in params.items()
    }
    return dataclasses.replace(graph, kernels=frozenset(kernels)), params


def _is_kernel_of(name: str, node: graphs.Node | None) -> bool:
    if node is None or node.operator != "conv2d":
        return False
    others = [v for i, v in enumerate(node.arguments) if i != 1]
    return _name(node.arguments[1]) == name and name not in graphs.references(others)
