"""Checks a network's StableHLO, which a stranger may have written, before it is used.

A graph is kept as text, with every operation in MLIR's generic form, `"name"(...)`.
(MLIR's reader of *binary* modules is not safe for files from strangers: bytes changed
at random can corrupt memory. Its reader of text verifies each operation.) The text is
looked at in Python first; only if it names nothing but allowed operations does MLIR
parse it. Then the parsed module is checked again: operations, targets of custom calls,
types, calls, and the size of every array, all before an array is allocated.

Allowed are pure functions of arrays. Not allowed is whatever runs other code or talks
to something else (custom calls, infeed and outfeed, send and receive, collectives),
draws random numbers, or may never end (while, recursion).
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import mlir
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import chlo, stablehlo

from jdissect.base.errors import UserError
from jdissect.base.printable import printable

MOST_BYTES = 1 << 26  # of a text
_DEEPEST = 100  # nested brackets; MLIR's parser is recursive
_MOST_OPERATIONS = 1_000_000  # counted once for each call of a function
_LARGEST = 1 << 32  # bytes of one array, for one image
_ALL = 1 << 38  # bytes of all arrays together, for one image


def _words(text: str, before: str = "") -> frozenset[str]:
    return frozenset(before + word for word in text.split())


_OPERATIONS = _words("builtin.module func.func func.call func.return") | _words(
    """
    abs add and atan2 bitcast_convert broadcast_in_dim case cbrt ceil clamp compare
    composite concatenate constant convert convolution cosine count_leading_zeros
    custom_call divide dot_general dynamic_broadcast_in_dim dynamic_conv dynamic_gather
    dynamic_iota dynamic_pad dynamic_reshape dynamic_slice dynamic_update_slice
    exponential exponential_minus_one floor gather get_dimension_size iota is_finite log
    log_plus_one logistic maximum minimum multiply negate not optimization_barrier or
    pad popcnt power real_dynamic_slice reduce reduce_precision reduce_window remainder
    reshape return reverse round_nearest_afz round_nearest_even rsqrt scatter select
    shift_left shift_right_arithmetic shift_right_logical sign sine slice sort sqrt
    subtract tan tanh transpose xor
    """,
    "stablehlo.",
)
# Checked, and removed, when shapes become known; it calls nothing.
_TARGETS = frozenset({"shape_assertion"})
_COMPOSITES = frozenset({"chlo.erf", "chlo.top_k"})
_WIDTHS = {"f32": 4, "bf16": 2, "f16": 2, "i1": 1, "i64": 8, "ui64": 8}
_WIDTHS |= {f"{sign}i{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32)}
# Names of attributes with a dot; others may change what a compiler does.
_DOTTED = _words(
    """jax.global_constant jax.result_info jax.uses_shape_polymorphism
    mhlo.num_partitions mhlo.num_replicas"""
)
_ATTRIBUTES = _words(
    """#stablehlo #stablehlo.conv #stablehlo.dot #stablehlo.gather
    #stablehlo.scatter"""
)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_TENSOR = re.compile(rf"tensor<(?:(?:\?|\d{{1,10}})x)*(?:{'|'.join(_WIDTHS)})>")
_WORD = re.compile(r"[#!%@^]?[A-Za-z_][\w.$]*")
_FORBIDDEN = _words(
    """dense_resource loc affine_map affine_set sparse opaque strided distinct vector
    memref tensor complex tuple index none"""
)


def check_text(text: str) -> None:
    """Looks at a graph's text, without MLIR.

    Raises:
      UserError: the text is too large or too deeply nested, or names something that
        is not allowed.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"it has {len(text):,} bytes, more than {MOST_BYTES:,}")
    if not text.isascii() or "\0" in text:
        raise UserError("it is not plain text")
    operations = set(re.findall(r'"([^"\\\n]*)"\(', text))
    if unknown := sorted(operations - _OPERATIONS):
        raise UserError(f"it has the operation {printable(unknown[0])!r}")
    rest = _TENSOR.sub(" ", _STRING.sub('""', text))
    if '"' in rest.replace('""', ""):
        raise UserError("a string in it does not end")
    _check_depth(rest)
    for word in set(_WORD.findall(rest)):
        if word[0] in "%@^":
            continue
        allowed = _ATTRIBUTES if word[0] in "#!" else _DOTTED
        plain = word[0] not in "#!" and "." not in word and word not in _FORBIDDEN
        if not plain and word not in allowed:
            raise UserError(f"it has {printable(word)!r}")


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in re.findall(r"->|[()\[\]{}<>]", text):
        if bracket != "->":
            depth += 1 if bracket in "([{<" else -1
        if not 0 <= depth <= _DEEPEST:
            raise UserError("its brackets are nested too deeply, or do not match")


def context() -> ir.Context:
    """Returns an MLIR context that knows StableHLO and what belongs to it."""
    made = ir.Context()
    with made:
        stablehlo.register_dialect(made)
        chlo.register_dialect(made)  # composites become its operations
        # Reading a module registers what else StableHLO needs.
        mlir.deserialize_portable_artifact(_nothing())
    return made


@functools.cache
def _nothing() -> bytes:
    with ir.Context() as made:
        stablehlo.register_dialect(made)
        return packed(ir.Module.parse("module {}"))


def packed(module: ir.Module) -> bytes:
    """Returns a module in the form that `jax.export` takes."""
    return mlir.serialize_portable_artifact(
        module, stablehlo.get_current_version(), False
    )


def parse(text: str) -> ir.Module:
    """Parses a text that `check_text` has passed, within `context()`.

    Raises:
      UserError: it is no valid module.
    """
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        reason = str(error).partition("error: ")[2] or str(error)
        raise UserError(printable(" ".join(reason.split()))) from None


def check_module(
    module: ir.Module,
    inputs: Sequence[tuple[tuple[int | None, ...], str]],
    outputs: Sequence[tuple[tuple[int | None, ...], str]],
) -> None:
    """Checks a parsed module, and that `main` takes and gives what it should.

    Args:
      module: the module.
      inputs: shape (None: any size) and element type of each argument of `main`.
      outputs: the same for each result.

    Raises:
      UserError: an operation, a custom call or a type is not allowed; functions call
        each other in a circle, or too many of them; or `main` has other types.
    """
    functions = {}
    for operation in _walk(module.operation):
        _check_operation(operation)
        if operation.name == "func.func":
            functions[_text(operation, "sym_name")] = operation
    for what, types, needed in zip(
        ("arguments", "results"),
        _types_of(functions.get("main")),
        (inputs, outputs),
        strict=True,
    ):
        found = [_shape_and_type(each) for each in types]
        if found != list(needed):
            odd = next(
                (
                    f"{_shown(a)} for {_shown(b)}"
                    for a, b in zip(found, needed, strict=False)
                    if a != b
                ),
                f"{len(found)} for {len(needed)}",
            )
            raise UserError(f"the {what} of its main do not fit the weights: {odd}")
    _check_calls(functions)


def check_sizes(module: ir.Module) -> None:
    """Checks the sizes of all arrays of a module whose shapes are all known.

    Raises:
      UserError: an array, or all of them, are too large.
    """
    total = 0
    for operation in _walk(module.operation):
        for value in operation.results:
            shape, kind = _shape_and_type(value.type)
            if None in shape:
                raise UserError("the size of an array in it cannot be known")
            total += _bytes(shape, kind)
    if total > _ALL:
        raise UserError(f"its arrays take {total:,} bytes for one image")


def _walk(operation: Any) -> Iterator[Any]:
    left = [operation.operation]
    while left:
        operation = left.pop()
        yield operation
        for region in operation.regions:
            for block in region.blocks:
                left += [each.operation for each in block.operations]


def _check_operation(operation: Any) -> None:
    name = operation.name
    if name not in _OPERATIONS:
        raise UserError(f"it has the operation {printable(name)!r}")
    if name == "stablehlo.custom_call":
        target = _text(operation, "call_target_name")
        if target not in _TARGETS:
            raise UserError(f"it calls {printable(target)!r}")
    if name == "stablehlo.composite":  # a function that a compiler may know by name
        known = _text(operation, "name")
        if known not in _COMPOSITES:
            raise UserError(f"it calls {printable(known)!r}")
    values = list(operation.results)
    for region in operation.regions:
        for block in region.blocks:
            values += list(block.arguments)
    for value in values:
        _bytes(*_shape_and_type(value.type))


def _shape_and_type(of: Any) -> tuple[tuple[int | None, ...], str]:
    if not isinstance(of, ir.RankedTensorType):
        raise UserError(f"it has a value of type {printable(str(of), 60)}")
    kind = str(of.element_type)
    if kind not in _WIDTHS:
        raise UserError(f"it has numbers of type {printable(kind, 60)}")
    shape = tuple(
        None if of.is_dynamic_dim(axis) else of.get_dim_size(axis)
        for axis in range(of.rank)
    )
    return shape, kind


def _shown(array: tuple[tuple[int | None, ...], str]) -> str:
    shape, kind = array
    return f"{kind}[{', '.join('?' if n is None else str(n) for n in shape)}]"


def _bytes(shape: Sequence[int | None], kind: str) -> int:
    size = math.prod(n for n in shape if n is not None) * _WIDTHS[kind]
    if size > _LARGEST:
        raise UserError(f"an array in it is {[*shape]}, {size:,} bytes for one image")
    return size


def _types_of(main: Any) -> tuple[Any, Any]:
    if main is None:
        raise UserError("it has no main")
    kind = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    return kind.inputs, kind.results


def _text(operation: Any, attribute: str) -> str:
    return ir.StringAttr(operation.attributes[attribute]).value


def _check_calls(functions: dict[str, Any]) -> None:
    """Counts operations as if every call were replaced by what it calls."""
    counts: dict[str, int | None] = {}

    def count(name: str) -> int:
        if name not in functions:
            raise UserError(f"it calls {printable(name)!r}, which it does not have")
        if name in counts:
            known = counts[name]
            if known is None:
                raise UserError(f"{printable(name)!r} in it calls itself")
            return known
        counts[name], total = None, 0
        if len(counts) > _DEEPEST * 100:
            raise UserError("it has too many functions")
        for operation in _walk(functions[name]):
            total += 1 + sum(map(count, _called(operation)))
            if total > _MOST_OPERATIONS:
                raise UserError(f"it has more than {_MOST_OPERATIONS:,} operations")
        counts[name] = total
        return total

    try:
        count("main")
    except RecursionError:
        raise UserError("its calls are nested too deeply") from None


def _called(operation: Any) -> list[str]:
    """Names of the functions that an operation calls."""
    key = {"func.call": "callee", "stablehlo.composite": "decomposition"}
    if operation.name not in key:
        return []
    return [ir.FlatSymbolRefAttr(operation.attributes[key[operation.name]]).value]
