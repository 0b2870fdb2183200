"""Arithmetic and bytes of a function, counted before any compiler has seen it.

The function is traced on shapes alone, and its operations are added up, a loop's as
often as the loop runs. So the figures are those of the program as it is written: they
depend on neither the machine nor the compiler. Formulas, of an operation on n numbers:

- a matrix product of [b, m, k] and [b, k, n], 2 b m k n; a convolution, 2 times its
  outputs, the kernel's sides and the input channels of a group: `products`;
- a reduction or a scan of n numbers, n; of windows, the outputs times a window's size;
  a sort, n log2 n; a scatter that adds or compares, its updates; any other operation
  with a result for each number (of floats, integers, bits or flags), n: `operations`;
- what only moves numbers or changes their type, nothing;
- a Pallas kernel, its body as often as it has blocks;
- `bytes` are those of all operands and results of all operations, as if nothing stayed
  in a register or a cache; but reshaping and broadcasting are free, what reads or
  writes a part of an array moves that part, and a loop itself moves nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

_FREE = {
    *("bitcast_convert_type", "broadcast_in_dim", "copy_p", "device_put", "empty"),
    *("expand_dims", "iota", "mesh_cast", "optimization_barrier", "pvary", "reshape"),
    *("sharding_constraint", "squeeze", "stop_gradient", "pbroadcast", "axis_index"),
}
_MOVES = {
    "get",
    "swap",
    "program_id",
    "multiple_of",
    "concatenate",
    "convert_element_type",
    "copy",
    "pad",
    "rev",
    "transpose",
}
_PARTS = {"dynamic_slice", "gather", "slice", "split"}  # read a part of their operand
_WRITES = {"dynamic_update_slice": 1, "scatter": 2}  # where their updates stand
_COMBINES = {f"scatter-{n}" for n in ("add", "mul", "min", "max", "sub")}
_COMBINES |= {name.replace("-", "_") for name in _COMBINES}
_REDUCES = ("reduce_", "arg", "cum")


@dataclasses.dataclass(frozen=True)
class Count:
    """What a function does; see above.

    Attributes:
      products: floating-point operations of matrix products and convolutions.
      operations: all others.
      bytes: read and written.
    """

    products: float = 0
    operations: float = 0
    bytes: float = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.products + other.products,
            self.operations + other.operations,
            self.bytes + other.bytes,
        )

    def __mul__(self, times: float) -> "Count":
        return Count(self.products * times, self.operations * times, self.bytes * times)


def count(
    function: Callable[..., Any], *arguments: Any, trips: Sequence[float] = ()
) -> Count:
    """What `function(*arguments)` does.

    Args:
      function: can be traced.
      arguments: pytrees of arrays or of `jax.ShapeDtypeStruct`.
      trips: how often each `while` loop is taken to run, an outer one before those in
        it. Loops of known length need no estimate.

    Raises:
      ValueError: there are more or fewer `while` loops than estimates.
    """
    estimates = _Estimates(tuple(trips))
    found = _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, estimates)
    if estimates.taken != len(estimates.trips):
        raise ValueError(
            f"{estimates.taken} while loops, and estimates for "
            f"{len(estimates.trips)}: give `trips` for each"
        )
    return found


@dataclasses.dataclass
class _Estimates:
    """Hands out the estimates in order."""

    trips: tuple[float, ...]
    taken: int = 0

    def take(self) -> float:
        self.taken += 1
        return self.trips[self.taken - 1] if self.taken <= len(self.trips) else 1


def _of_jaxpr(jaxpr, estimates: _Estimates) -> Count:
    return sum((_of_equation(e, estimates) for e in jaxpr.eqns), Count())


def _of_equation(equation, estimates: _Estimates) -> Count:
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _of_jaxpr(params["jaxpr"].jaxpr, estimates) * params["length"]
    if name == "while":
        trips = estimates.take()
        body = _of_jaxpr(params["body_jaxpr"].jaxpr, estimates) * trips
        return body + _of_jaxpr(params["cond_jaxpr"].jaxpr, estimates) * (trips + 1)
    if name == "pallas_call":
        # Its blocks stay on the chip: it moves its operands and results.
        inner = _of_jaxpr(params["jaxpr"], estimates)
        inner = dataclasses.replace(inner, bytes=0)
        blocks = math.prod(params["grid_mapping"].grid)
        return inner * blocks + Count(bytes=_bytes(equation))
    if name == "cond":
        branches = [_of_jaxpr(b.jaxpr, estimates) for b in params["branches"]]
        return max(branches, key=lambda c: (c.products, c.operations, c.bytes))
    if not (name.startswith(_REDUCES) or "scatter" in name or name == "sort"):
        inner = list(_inside(params))
        if inner:
            return sum((_of_jaxpr(jaxpr, estimates) for jaxpr in inner), Count())
    return Count(_products(equation), _operations(equation), _bytes(equation))


def _inside(params) -> Iterator[Any]:
    """Functions that an operation calls once."""
    for value in params.values():
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            yield value


def _products(equation) -> float:
    """Floating-point operations of a matrix product or a convolution, else 0."""
    name, params = equation.primitive.name, equation.params
    results = math.prod(equation.outvars[0].aval.shape)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * results * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        units = kernel[params["dimension_numbers"].rhs_spec[0]]
        # Zeros between an input's pixels (a strided convolution's gradient) are no
        # arithmetic that has to be done.
        holes = math.prod(params["lhs_dilation"])
        return 2 * results * math.prod(kernel) / units / holes
    return 0


def _operations(equation) -> float:
    name, params = equation.primitive.name, equation.params
    first = _size(equation.invars[0]) if equation.invars else 0
    results = max((_size(each) for each in equation.outvars), default=0)
    if name in ("dot_general", "conv_general_dilated", *_FREE, *_MOVES, *_PARTS):
        return 0
    if name in _WRITES:
        return 0
    if name in _COMBINES:
        return _size(equation.invars[2])
    if name.startswith("reduce_window"):
        return results * math.prod(params["window_dimensions"])
    if name.startswith("select_and_"):  # the gradient of a maximum over windows
        return max(first, results) * math.prod(params["window_dimensions"])
    if name.startswith(_REDUCES):
        return first
    if name == "sort":
        length = equation.invars[0].aval.shape[params["dimension"]]
        return first * math.ceil(math.log2(max(length, 2)))
    return results


def _bytes(equation) -> float:
    name = equation.primitive.name
    read = [_size(each, in_bytes=True) for each in equation.invars]
    written = [_size(each, in_bytes=True) for each in equation.outvars]
    if name in _FREE:
        return 0
    if name in _PARTS:
        return 2 * sum(written) + sum(read[1:])
    if name in _WRITES or name in _COMBINES:
        updates = read[_WRITES.get(name, 2)]
        return (3 if name in _COMBINES else 2) * updates + sum(read[1:]) - updates
    return sum(read) + sum(written)


def _size(variable, in_bytes: bool = False) -> int:
    aval = variable.aval
    shape = getattr(aval, "shape", None)
    if shape is None:  # a token
        return 0
    return math.prod(shape) * (aval.dtype.itemsize if in_bytes else 1)
