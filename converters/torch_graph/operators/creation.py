"""Translates tensors made of nothing, and the arithmetic of sizes."""

import math
import operator
from typing import Any

import jax.numpy as jnp
from jdissect.converters.torch_graph.operators.elementwise import values_as
from jdissect.converters.torch_graph.values import Maps, is_floating, plain


def _type(dtype, otherwise="float32"):
    names = {"int64": "int32", "float64": "float32"}
    names |= {"float16": "float32", "bfloat16": "float32"}
    dtype = dtype or otherwise
    return jnp.dtype(names.get(dtype, dtype))


def _of_number(value) -> str:
    if isinstance(value, bool):
        return "bool"
    return "int32" if isinstance(value, int) else "float32"


def full(size, fill_value, dtype=None, **_):
    """aten.full."""
    dtype = _type(dtype, _of_number(fill_value))
    return jnp.full(tuple(size), fill_value, dtype)


def _filled(value):
    def make(size, dtype=None, **_):
        return jnp.full(tuple(size), value, _type(dtype))

    return make


def _filled_like(value):
    def make(x, dtype=None, **_):
        return full_like(x, value, dtype)

    return make


def full_like(x, fill_value, dtype=None, **_):
    """aten.full_like."""
    array = x.array if isinstance(x, Maps) else jnp.asarray(x)
    filled = jnp.full_like(array, fill_value)
    filled = filled if dtype is None else values_as(filled, dtype)
    return Maps(filled) if isinstance(x, Maps) else filled


def _new(value):
    def make(x, size, dtype=None, **_):
        return new_full(x, size, value, dtype)

    return make


def new_full(x, size, fill_value, dtype=None, **_):
    """aten.new_full."""
    kind = x.dtype
    if dtype is not None and not (is_floating(x) and "float" in dtype):
        kind = _type(dtype)
    return jnp.full(tuple(size), fill_value, kind)


def arange(*arguments: Any, dtype=None, **_):
    """aten.arange: (end), (start, end) or (start, end, step)."""
    whole = all(not isinstance(value, float) for value in arguments)
    start, end, step = (
        (0, *arguments, 1) if len(arguments) == 1 else (*arguments, 1)[:3]
    )
    return jnp.arange(start, end, step, _type(dtype, "int32" if whole else "float32"))


def linspace(start, end, steps, dtype=None, **_):
    """aten.linspace."""
    return jnp.linspace(plain(start), plain(end), steps, dtype=_type(dtype))


def eye(rows, columns=None, dtype=None, **_):
    """aten.eye."""
    return jnp.eye(rows, columns, dtype=_type(dtype))


def scalar_tensor(value, dtype=None, **_):
    """aten.scalar_tensor."""
    return jnp.asarray(value, _type(dtype))


def size(x, dim=None):
    """aten.sym_size."""
    return tuple(x.shape) if dim is None else x.shape[dim]


def count(x):
    """aten.sym_numel."""
    total = 1
    for extent in x.shape:
        total = total * extent
    return total


def _floor(value):
    return value if isinstance(value, int) else math.floor(value)


OPERATORS = {
    "full": full,
    "full_like": full_like,
    "new_full": new_full,
    "zeros": _filled(0),
    "ones": _filled(1),
    "empty": _filled(0),
    "zeros_like": _filled_like(0),
    "ones_like": _filled_like(1),
    "empty_like": _filled_like(0),
    "new_zeros": _new(0),
    "new_ones": _new(1),
    "new_empty": _new(0),
    "arange": arange,
    "linspace": linspace,
    "eye": eye,
    "scalar_tensor": scalar_tensor,
    "sym_size": size,
    "sym_numel": count,
    **{f"python.{f.__name__}": f for f in (operator.add, operator.sub, operator.mul)},
    **{f"python.{f.__name__}": f for f in (operator.mod, operator.neg, operator.pow)},
    "python.floordiv": operator.floordiv,
    "python.truediv": operator.truediv,
    "python.floor": _floor,
    "python.trunc": _floor,
    "python.sym_max": max,
    "python.sym_min": min,
}
