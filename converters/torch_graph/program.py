"""Writes an exported PyTorch program as a `graph.Graph`.

Operators that change their input are replaced by ones that do not, which is right where
nothing else looks at that memory: `is_direct` finds that out.
"""

import math
import operator
import types
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jdissect.converters.torch_files import import_torch
from jdissect.converters.torch_graph import graph as graphs

# Operators of Python on sizes.
_PYTHON = {
    getattr(operator, name): name
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "pow")
    + ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem")
} | {math.floor: "floor", math.ceil: "ceil", math.trunc: "trunc"}
# They check what holds for every batch, and return nothing.
_CHECKS = ("_assert_", "sym_constrain_range", "_guards_fn")
# Composite operators that return new memory; the schema does not say so.
_ALLOCATING = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear", "matmul", "einsum"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "cat"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "softmax", "log_softmax"),
    *("scaled_dot_product_attention", "pixel_shuffle", "pixel_unshuffle", "stack"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "relu6"),
    *("hardswish", "silu", "pad", "prelu", "selu", "var", "std", "where"),
}
# Begins the names of values, which may be those of parameters otherwise.
_VALUE = "%"
_WRAPPERS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


class Writer:
    """Writes an exported program as a graph.

    Args:
      exported: a torch.export.ExportedProgram for which `is_direct` holds, or that was
        decomposed.
      outputs: names of its outputs.
    """

    def __init__(self, exported: Any, outputs: Sequence[str]):
        self.exported = exported
        self.outputs = outputs
        self.nodes: list[graphs.Node] = []
        self.names: dict[Any, str] = {}  # node of fx -> name of its value now
        self.aliases = _Aliases()

    def write(self) -> tuple[graphs.Graph, dict[str, np.ndarray]]:
        """Returns the graph, and name -> array of what it refers to."""
        arrays = self._inputs()
        signature = self.exported.graph_signature
        results = self._calls(self.exported.graph_module, "")
        kinds = [spec.kind.name for spec in signature.output_specs]
        own = [
            r for r, kind in zip(results, kinds, strict=True) if kind == _USER_OUTPUT
        ]
        named = zip(self.outputs, own, strict=True)
        outputs = {name: result.name for name, result in named}
        graph = graphs.without_unused(graphs.Graph(tuple(self.nodes), outputs))
        used = {name for node in graph.nodes for name in graphs.inputs(node)}
        used |= set(graph.outputs.values())
        return graph, {k: v for k, v in arrays.items() if k in used}

    def _inputs(self) -> dict[str, np.ndarray]:
        """Names the placeholders; returns the parameters' arrays, shared ones once."""
        torch = import_torch()
        arrays: dict[str, np.ndarray] = {}
        places: dict[Any, str] = {}
        holders = {
            n.name: n for n in self.exported.graph.nodes if n.op == "placeholder"
        }
        for spec in self.exported.graph_signature.input_specs:
            holder = holders[spec.arg.name]
            if spec.kind.name == "USER_INPUT":
                self.names[holder] = graphs.INPUT
                continue
            held = {**self.exported.constants, **self.exported.state_dict}
            name = spec.target.removeprefix("module.")
            if not isinstance(held[spec.target], torch.Tensor):
                self.names[holder] = name  # a generator of random numbers
                continue
            tensor = held[spec.target].detach()
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if not tensor.numel():
                place = name
            self.names[holder] = places.setdefault(place, name)
            arrays[self.names[holder]] = _array(tensor)
        return arrays

    def _calls(self, module, prefix: str) -> Any:
        """Writes the calls of a graph; returns its outputs."""
        for node in module.graph.nodes:
            if node.op == "output":
                return self._argument(node.args[0])
            if node.op == "get_attr":
                self.aliases.add(node)
            if node.op != "call_function":
                continue
            target = getattr(node.target, "__name__", str(node.target))
            if target.startswith(_CHECKS):
                continue
            if any(target.startswith(name) for name in _WRAPPERS):
                self._inline(module, node, prefix)
                continue
            name = operator_name(node.target)
            result = f"{_VALUE}{prefix}{node.name}"
            arguments = tuple(self._argument(value) for value in node.args)
            options = {k: self._argument(value) for k, value in node.kwargs.items()}
            if _changes_input(node):
                name = name.removesuffix("_")
                for alias in self.aliases.of(node.args[0]):
                    self.names[alias] = result
            self.names[node] = result
            self.aliases.add(node)
            self.nodes.append(
                graphs.Node(result, name, arguments, options, _where(node))
            )
        raise AssertionError("a graph has an output")

    def _inline(self, module, node, prefix: str) -> None:
        """Writes a graph that is called under another state of autograd or autocast."""
        position, inner = next(
            (i, a)
            for i, a in enumerate(node.args)
            if getattr(a, "op", "") == "get_attr"
        )
        body = getattr(module, inner.target)
        holders = [n for n in body.graph.nodes if n.op == "placeholder"]
        for holder, given in zip(holders, node.args[position + 1 :], strict=True):
            self.names[holder] = self.names[given]
        results = self._calls(body, f"{prefix}{node.name}.")
        name = f"{_VALUE}{prefix}{node.name}"
        self.names[node] = name
        self.nodes.append(graphs.Node(name, "tuple", (results,), {}, _where(node)))

    def _argument(self, value: Any) -> Any:
        torch = import_torch()
        if isinstance(value, torch.fx.Node):
            return graphs.Reference(self.names[value])
        if isinstance(value, tuple | list):
            return [self._argument(item) for item in value]
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        if isinstance(value, torch.device | torch.layout | torch.memory_format):
            return None
        return value


_USER_OUTPUT = "USER_OUTPUT"


class _Aliases:
    """Which values may share memory, and so change together."""

    def __init__(self):
        self._groups: dict[Any, list[Any]] = {}

    def add(self, node) -> None:
        group = [node]
        if not _allocates(node):
            changed = _changes_input(node)
            for given in node.args[:1] if changed else node.all_input_nodes:
                group += self._groups.get(given, [given])
        for member in group:
            self._groups[member] = group

    def of(self, node) -> list[Any]:
        return self._groups.get(node, [node])


def is_direct(exported, translated: Collection[str]) -> bool:
    """Returns whether a program can be written as it is.

    Args:
      exported: the torch.export.ExportedProgram.
      translated: names of the operators that have a translation.
    """
    aliases = _Aliases()
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        target = getattr(node.target, "__name__", str(node.target))
        if target.startswith((*_CHECKS, *_WRAPPERS)):
            continue
        name = operator_name(node.target)
        if _changes_input(node):
            name = name.removesuffix("_")
            seen = aliases.of(node.args[0])
            if any(member.op != "call_function" for member in seen):
                return False
            if sum(not _changes_input(member) for member in seen) > 1:
                return False
        if name not in translated:
            return False
        aliases.add(node)
    return True


def _changes_input(node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _allocates(node) -> bool:
    """Whether a node's value has memory of its own."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op == "call_function" and node.target is not operator.getitem
    if operator_name(node.target) in _ALLOCATING:
        return True
    composite = node.target._can_decompose()
    return not composite and all(r.alias_info is None for r in schema.returns)


def operator_name(target: Any) -> str:
    """Returns 'conv2d' for torch.ops.aten.conv2d.default."""
    if isinstance(target, types.BuiltinFunctionType) and target in _PYTHON:
        return f"python.{_PYTHON[target]}"
    schema = getattr(target, "_schema", None)
    if schema is None:
        return f"python.{getattr(target, '__name__', target)}"
    space, name = schema.name.split("::")
    return name if space == "aten" else f"{space}.{name}"


def _where(node) -> str:
    """Returns the dotted name of the module that a node stands in, and its class."""
    stack = node.meta.get("nn_module_stack") or {}
    for path, kind in reversed(stack.values()):
        name = str(path).removeprefix("module").lstrip(".")
        kind = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
        if "Probed" in kind:
            break
        return f"{name or 'the module itself'} ({kind.rsplit('.', 1)[-1]})"
    return "the module itself"


def _array(tensor) -> np.ndarray:
    array = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    if array.dtype == np.int64:
        array = np.clip(array, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
        array = array.astype(np.int32)
    return np.array(array)
