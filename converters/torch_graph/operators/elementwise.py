"""Translates operators on single elements: arithmetic, comparisons, activations.

Formulas are those of PyTorch's documentation. Arguments keep PyTorch's names and order.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jdissect.converters.torch_graph import values
from jdissect.converters.torch_graph.values import Maps, elementwise, is_floating


def _float(x):
    """Returns integers and booleans as float32, as PyTorch's functions do."""
    return x if is_floating(x) else jnp.asarray(x, jnp.float32)


def _of_float(function):
    return elementwise(lambda x: function(_float(x)))


def _add(x, other, alpha=1):
    return x + (other if alpha == 1 else alpha * other)


def _subtract(x, other, alpha=1):
    return x - (other if alpha == 1 else alpha * other)


def _subtract_from(x, other, alpha=1):
    return other - (x if alpha == 1 else alpha * x)


def _divide(x, other, rounding_mode=None):
    if rounding_mode == "floor":
        return jnp.floor_divide(x, other)
    if rounding_mode == "trunc":
        found = jnp.trunc(x / other)
        integers = not is_floating(x) and not is_floating(other)
        integers = integers and not isinstance(other, float)
        return found.astype(jnp.int32) if integers else found
    return x / other


def _power(x, exponent):
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) < 64:
        exponent = int(exponent)
    if isinstance(exponent, int) and exponent < 0:
        return 1 / (_float(x) ** -exponent)
    return x**exponent


def _clamp(x, low=None, high=None):
    if low is not None:
        x = jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _gelu(x, approximate="none"):
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + jnp.tanh(inner))
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    below = alpha * jnp.expm1(jnp.minimum(x, 0) * input_scale)
    return scale * jnp.where(x > 0, x, below)


def _celu(x, alpha=1.0):
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha))


def _softplus(x, beta=1.0, threshold=20.0):
    return jnp.where(x * beta > threshold, x, jnp.logaddexp(x * beta, 0) / beta)


def _threshold(x, threshold, value):
    return jnp.where(x > threshold, x, jnp.asarray(value, x.dtype))


def _where(condition, x, y):
    return jnp.where(condition, x, y)


def _masked_fill(x, mask, value):
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


def _hard_sigmoid(x):
    return jnp.clip(x + 3, 0, 6) / 6


def _soft_shrink(x, lambd=0.5):
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, 0.0))


def prelu(x, weight):
    """Multiplies what is negative, with one factor or one per channel."""
    if weight.size > 1 and x.ndim > 1:
        weight = weight.reshape((-1,) + (1,) * (x.ndim - 2))
    return elementwise(lambda x, w: jnp.where(x > 0, x, w * x))(x, weight)


def _remainder(x, other):
    return jnp.mod(x, other)


def copy(x, source, non_blocking=False):
    """Returns the source in the shape and type of x."""
    source = jnp.broadcast_to(values.plain(source), x.shape)
    return source if is_floating(x) and is_floating(source) else source.astype(x.dtype)


def fill(x, value):
    """Returns a tensor like x with one value everywhere."""
    array = x.array if isinstance(x, Maps) else x
    filled = jnp.full_like(array, value)
    return Maps(filled) if isinstance(x, Maps) else filled


def identity(x, *_, **__):
    """Returns x: copies, memory formats, and what does nothing in evaluation."""
    return x


def dropout(x, p, train):
    """Returns x; dropout in training would need random numbers."""
    if train and p:
        raise values.Untranslated("it drops values at random, as in training")
    return x


def convert(x, *arguments, **options):
    """Converts between integers and floating types.

    Floating types among each other stay as they are: what computes in bfloat16 does so
    throughout, and every operator that needs float32 inside has it.
    """
    dtype = options.get("dtype")
    for value in arguments:
        if isinstance(value, str):
            dtype = value
        elif values.is_tensor(value):
            dtype = str(value.dtype)
    if dtype is None:
        return x
    return values_as(x, dtype)


def values_as(x, dtype: str):
    """Returns a tensor of PyTorch's type `dtype`, by the rule of `convert`."""
    wanted = _TYPES.get(dtype, dtype)
    if jnp.issubdtype(jnp.dtype(wanted), jnp.floating):
        if is_floating(x):
            return x
        wanted = jnp.float32
    array = x.array if isinstance(x, Maps) else jnp.asarray(x)
    found = array.astype(wanted)
    return Maps(found) if isinstance(x, Maps) else found


_TYPES = {
    "int64": "int32",
    "float64": "float32",
    "float16": "float32",
    "bfloat16": "float32",
}

_PLAIN_FUNCTIONS = {
    "abs": jnp.abs,
    "neg": jnp.negative,
    "sign": jnp.sign,
    "sgn": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "trunc": jnp.trunc,
    "round": jnp.round,
    "square": jnp.square,
    "relu": lambda x: jnp.maximum(x, 0),
    "relu6": lambda x: jnp.clip(x, 0, 6),
    "logical_not": jnp.logical_not,
    "bitwise_not": jnp.invert,
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "isfinite": jnp.isfinite,
    "add": _add,
    "sub": _subtract,
    "rsub": _subtract_from,
    "mul": lambda x, other: x * other,
    "div": _divide,
    "true_divide": lambda x, other: x / other,
    "floor_divide": jnp.floor_divide,
    "remainder": _remainder,
    "fmod": jnp.fmod,
    "pow": _power,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "eq": lambda x, other: x == other,
    "ne": lambda x, other: x != other,
    "lt": lambda x, other: x < other,
    "le": lambda x, other: x <= other,
    "gt": lambda x, other: x > other,
    "ge": lambda x, other: x >= other,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "__and__": jnp.bitwise_and,
    "__or__": jnp.bitwise_or,
    "atan2": jnp.arctan2,
    "lerp": lambda x, end, weight: x + weight * (end - x),
    "addcmul": lambda x, y, z, value=1: x + value * y * z,
    "addcdiv": lambda x, y, z, value=1: x + value * y / z,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda x, low: jnp.maximum(x, low),
    "clamp_max": lambda x, high: jnp.minimum(x, high),
    "where": _where,
    "masked_fill": _masked_fill,
    "gelu": _gelu,
    "silu": lambda x: x * jax.nn.sigmoid(x),
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "hardsigmoid": _hard_sigmoid,
    "hardswish": lambda x: x * _hard_sigmoid(x),
    "hardtanh": lambda x, low=-1.0, high=1.0: jnp.clip(x, low, high),
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "elu": _elu,
    "selu": lambda x: _elu(x, 1.6732632423543772, 1.0507009873554805),
    "celu": _celu,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + jnp.abs(x)),
    "log_sigmoid": jax.nn.log_sigmoid,
    "threshold": _threshold,
    "hardshrink": lambda x, lambd=0.5: jnp.where(jnp.abs(x) > lambd, x, 0.0),
    "softshrink": _soft_shrink,
    "nan_to_num": lambda x, nan=0.0, posinf=None, neginf=None: jnp.nan_to_num(
        x, nan=nan or 0.0, posinf=posinf, neginf=neginf
    ),
}

_FLOAT_FUNCTIONS = {
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "exp2": jnp.exp2,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "log10": jnp.log10,
    "sqrt": jnp.sqrt,
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "atan": jnp.arctan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
    "sigmoid": jax.nn.sigmoid,
}

OPERATORS = {
    **{name: elementwise(f) for name, f in _PLAIN_FUNCTIONS.items()},
    **{name: _of_float(f) for name, f in _FLOAT_FUNCTIONS.items()},
    "prelu": prelu,
    "_prelu_kernel": elementwise(lambda x, w: jnp.where(x > 0, x, w * x)),
    "copy": copy,
    "fill": fill,
    "zero": functools.partial(fill, value=0),
    "dropout": dropout,
    "feature_dropout": dropout,
    "alpha_dropout": dropout,
    "to": convert,
    "_to_copy": convert,
    "type_as": convert,
    "clone": identity,
    "contiguous": identity,
    "detach": identity,
    "detach_copy": identity,
    "alias": identity,
    "alias_copy": identity,
    "lift_fresh_copy": identity,
    "lift_fresh": identity,
}
