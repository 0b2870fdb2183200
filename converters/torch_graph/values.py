"""Represents the values of a graph: arrays, and feature maps with the channels last.

PyTorch's feature maps are [batch, channel, height, width]. Convolutions in XLA are
fastest with the channels last, so maps stay in that order from one operator to the
next, as `Maps`; an operator that has no form for them gets a transposed array.

Types follow PyTorch: an operator on bfloat16 computes in float32 and rounds once, and
a sum of products is kept in float32 until then. One rule differs: where float32 meets
bfloat16, the result is bfloat16, because a graph exported in float32 does not say
which of its constants would be bfloat16 in a network of that type.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Axis of PyTorch's order -> axis of [batch, height, width, channel].
LAST = (0, 3, 1, 2)


class Untranslated(Exception):
    """An operator is called with options that have no translation."""


class Maps(NamedTuple):
    """A tensor [batch, channel, height, width], stored as below.

    Attributes:
      array: [batch, height, width, channel].
    """

    array: jax.Array

    @property
    def shape(self) -> tuple[Any, ...]:
        batch, height, width, channel = self.array.shape
        return batch, channel, height, width

    @property
    def dtype(self):
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return 4


class Kernel(NamedTuple):
    """The weights of a convolution, stored as [height, width, in, out]."""

    array: jax.Array


def is_tensor(value: Any) -> bool:
    return isinstance(value, Maps | jax.Array | np.ndarray | np.generic)


def plain(value: Any) -> Any:
    """Returns a tensor in PyTorch's order; anything else unchanged."""
    if isinstance(value, Kernel):
        return value.array.transpose(3, 2, 0, 1)
    if not isinstance(value, Maps):
        return value
    array = value.array
    batch, height, width, channel = array.shape
    if height == 1 and width == 1:  # nothing moves, and XLA need not find out
        return array.reshape(batch, channel, 1, 1)
    return array.transpose(0, 3, 1, 2)


def channels_last(value: Any) -> Any:
    """Returns a tensor of four dimensions, or one that is broadcast to four, so stored.

    Scalars and what is no tensor are unchanged.
    """
    if isinstance(value, Maps):
        return value.array
    if not is_tensor(value) or not value.ndim:
        return value
    array = jnp.asarray(value)
    return array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)


def with_axes(value: Any, dims: Sequence[int]) -> tuple[Any, tuple[int, ...], Callable]:
    """Returns the stored array, the axes of PyTorch's dimensions, and the way back."""
    if isinstance(value, Maps):
        return value.array, tuple(LAST[dim % 4] for dim in dims), Maps
    return value, tuple(dim % max(value.ndim, 1) for dim in dims), _same


def _same(value):
    return value


def on_plain(function: Callable) -> Callable:
    """Makes an operator get tensors in PyTorch's order only."""

    @functools.wraps(function)
    def on_any(*arguments, **options):
        arguments = jax.tree.map(plain, arguments, is_leaf=_is_stored)
        options = jax.tree.map(plain, options, is_leaf=_is_stored)
        return function(*arguments, **options)

    return on_any


def _is_stored(value) -> bool:
    return value is None or isinstance(value, Maps | Kernel)


def is_half(value: Any) -> bool:
    """Whether a tensor is of a floating type below float32."""
    return is_tensor(value) and value.dtype in (jnp.bfloat16, jnp.float16)


def is_floating(value: Any) -> bool:
    return is_tensor(value) and jnp.issubdtype(value.dtype, jnp.floating)


def half_among(values: Sequence[Any]):
    """Returns the smallest floating type among tensors if it is below float32."""
    return next((value.dtype for value in values if is_half(value)), None)


def widen(value: Any) -> Any:
    """Returns a tensor of bfloat16 or float16 as float32; anything else unchanged."""
    return value.astype(jnp.float32) if is_half(value) else value


def narrow(value: Any, dtype) -> Any:
    """Returns a floating tensor in a type; None, or another tensor: unchanged."""
    if dtype is None or not is_floating(value):
        return value
    return value.astype(dtype)


def alike(values: Sequence[Any]) -> list[Any]:
    """Returns arrays of one type, by the rule above."""
    half = half_among(values)
    if half is not None:
        return [narrow(jnp.asarray(v), half) for v in values]
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(*arrays)
    return [array.astype(dtype) for array in arrays]


def precision(dtype) -> lax.Precision:
    """Returns the precision of products that a type needs on every device."""
    full = jnp.dtype(dtype) == jnp.float32
    return lax.Precision.HIGHEST if full else lax.Precision.DEFAULT


def product(function: Callable, *arrays: Any) -> Any:
    """Returns a product of arrays, summed in float32.

    XLA's CPU backend has no product of bfloat16 with sums in float32 for some orders
    of the factors; there they are converted before.

    Args:
      function: `jnp.matmul`, an einsum, or the like; takes `precision` and
        `preferred_element_type`.
      *arrays: factors of any types; `alike` makes them one.
    """
    arrays = tuple(alike(arrays))
    options: dict[str, Any] = {"precision": precision(arrays[0].dtype)}
    if not is_floating(arrays[0]):
        return function(*arrays, **options)
    options["preferred_element_type"] = jnp.float32

    def rounded(*arrays):
        return function(*arrays, **options)

    def converted(*arrays):
        return function(*map(widen, arrays), **options)

    if not is_half(arrays[0]):
        return rounded(*arrays)
    return lax.platform_dependent(*arrays, cpu=converted, default=rounded)


def elementwise(function: Callable) -> Callable:
    """Makes an operator of a function of broadcast arrays, in float32 inside."""

    @functools.wraps(function)
    def on_any(*arguments, **options):
        tensors = [value for value in arguments if is_tensor(value)]
        half = half_among(tensors)
        last = any(isinstance(value, Maps) for value in tensors)
        last = last and all(value.ndim <= 4 for value in tensors)
        arrange = channels_last if last else plain
        arguments = tuple(widen(arrange(value)) for value in arguments)
        result = narrow(function(*arguments, **options), half)
        return Maps(result) if last else result

    return on_any


def in_float32(function: Callable) -> Callable:
    """Makes an operator compute in float32 and round what it returns to its input."""

    @functools.wraps(function)
    def on_any(value, *arguments, **options):
        half = half_among([value])
        if half is None:
            return function(value, *arguments, **options)
        if isinstance(value, Maps):
            wide: Any = Maps(widen(value.array))
        else:
            wide = widen(value)
        found = function(wide, *arguments, **options)
        return jax.tree.map(lambda array: narrow(array, half), found)

    return on_any
