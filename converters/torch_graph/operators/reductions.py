"""Translates what reduces or accumulates along dimensions, in float32 inside."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jdissect.converters.torch_graph.values import (
    Maps,
    in_float32,
    is_floating,
    on_plain,
    plain,
    with_axes,
)

from jdissect.models.layers import spatial_mean


def _dims(x, dim) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(x.ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % max(x.ndim, 1) for d in dims)


def _reduced(x, dim, keepdim, function):
    """Applies `function(array, axes)`, which keeps the dimensions, and drops them."""
    dims = _dims(x, dim)
    array, axes, back = with_axes(x, dims)
    found = back(function(array, axes)) if array.ndim else function(array, axes)
    return found if keepdim else drop(found, dims)


def drop(x, dims: Sequence[int]):
    """Returns x without dimensions of size 1."""
    if not x.ndim:
        return plain(x)
    return jnp.squeeze(plain(x), tuple(dims))


def _reduction(function):
    """Makes an operator (x, dim, keepdim) of a function of jax.numpy."""

    def keep(array, axes):
        return function(array, axis=axes or None, keepdims=True)

    @in_float32
    def reduce(x, dim=None, keepdim=False, **_):
        return _reduced(x, dim, keepdim, keep)

    return reduce


def _total(function):
    """Makes it of one that counts booleans and integers, or takes floats."""

    def of(array, axis, keepdims):
        if not is_floating(array):
            array = array.astype(jnp.float32 if function is jnp.mean else jnp.int32)
        return function(array, axis=axis, keepdims=keepdims)

    return _reduction(of)


_plain_mean = _total(jnp.mean)


def mean(x, dim=None, keepdim=False, dtype=None):
    """aten.mean; over all positions of maps a product, see `models.layers`."""
    if isinstance(x, Maps) and set(_dims(x, dim)) == {2, 3}:
        found = spatial_mean(x.array).astype(x.dtype)
        return Maps(found[:, None, None]) if keepdim else found
    return _plain_mean(x, dim, keepdim)


def _spread(x, dim, correction, keepdim):
    """Returns the variance and the mean."""
    dims = _dims(x, dim)
    array, axes, back = with_axes(x, dims)
    count = 1
    for axis in axes:
        count *= array.shape[axis]
    average = array.mean(axes, keepdims=True)
    squares = ((array - average) ** 2).sum(axes, keepdims=True)
    variance = squares / (count - correction)
    both = (back(variance), back(average))
    return both if keepdim else tuple(drop(value, dims) for value in both)


def _moments(x, *arguments, correction=None, unbiased=None, keepdim=False, dim=None):
    """Reads the arguments of every overload of aten.var, std, var_mean."""
    for value in arguments[:1]:
        if isinstance(value, bool):
            unbiased = value
        else:
            dim = value
    rest = arguments[1:]
    if rest:
        unbiased, keepdim = rest[0], rest[1] if len(rest) > 1 else keepdim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return _spread(x, dim, correction, keepdim)


@in_float32
def variance(x, *arguments, **options):
    """aten.var."""
    return _moments(x, *arguments, **options)[0]


@in_float32
def deviation(x, *arguments, **options):
    """aten.std."""
    found = _moments(x, *arguments, **options)[0]
    return Maps(jnp.sqrt(found.array)) if isinstance(found, Maps) else jnp.sqrt(found)


@in_float32
def variance_and_mean(x, *arguments, **options):
    """aten.var_mean."""
    return _moments(x, *arguments, **options)


def _norm(array, axes, order):
    size = jnp.abs(array)
    if order == float("inf"):
        return size.max(axes, keepdims=True)
    if order == float("-inf"):
        return size.min(axes, keepdims=True)
    if order == 0:
        return (size != 0).astype(array.dtype).sum(axes, keepdims=True)
    if order == 1:
        return size.sum(axes, keepdims=True)
    if order == 2:
        return jnp.sqrt((array * array).sum(axes, keepdims=True))
    return (size**order).sum(axes, keepdims=True) ** (1 / order)


@in_float32
def norm(x, ord=2, dim=None, keepdim=False, dtype=None):
    """aten.norm, linalg_vector_norm."""
    order = 2 if ord is None else ord
    return _reduced(x, dim, keepdim, functools.partial(_norm, order=order))


def _extreme(function, position):
    """Makes aten.max or aten.min: of all, along a dimension, or of two tensors."""

    def extreme(x, dim: Any = None, keepdim=False):
        if dim is None:
            return function(plain(x))
        if not isinstance(dim, int):
            pair = jnp.maximum if function is jnp.max else jnp.minimum
            return pair(plain(x), plain(dim))
        x = plain(x)
        found = function(x, axis=dim, keepdims=keepdim)
        return found, position(x, axis=dim, keepdims=keepdim).astype(jnp.int32)

    return extreme


def _position(function):
    @on_plain
    def position(x, dim=None, keepdim=False):
        found = function(x, axis=dim, keepdims=keepdim and dim is not None)
        return found.astype(jnp.int32)

    return position


@in_float32
def softmax(x, dim, *_, **__):
    """aten.softmax, _softmax."""
    array, (axis,), back = with_axes(x, (dim,))
    return back(jax.nn.softmax(_as_float(array), axis))


@in_float32
def log_softmax(x, dim, *_, **__):
    """aten.log_softmax, _log_softmax."""
    array, (axis,), back = with_axes(x, (dim,))
    return back(jax.nn.log_softmax(_as_float(array), axis))


def _as_float(array):
    return array if is_floating(array) else array.astype(jnp.float32)


def _accumulation(function):
    @in_float32
    def accumulate(x, dim, dtype=None):
        array, (axis,), back = with_axes(x, (dim,))
        if not is_floating(array):
            array = array.astype(jnp.int32)
        return back(function(array, axis=axis))

    return accumulate


@on_plain
def sort(x, dim=-1, descending=False, stable=None):
    """aten.sort: values and places."""
    places = jnp.argsort(x, axis=dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, places, dim), places.astype(jnp.int32)


@on_plain
def topk(x, k, dim=-1, largest=True, sorted=True):
    """aten.topk: values and places, the largest or smallest first."""
    moved = jnp.moveaxis(x, dim, -1)
    found, places = jax.lax.top_k(moved if largest else -moved, k)
    found = found if largest else -found
    return jnp.moveaxis(found, -1, dim), jnp.moveaxis(places, -1, dim)


OPERATORS = {
    "mean": mean,
    "sum": _total(jnp.sum),
    "amax": _reduction(jnp.max),
    "amin": _reduction(jnp.min),
    "any": _reduction(jnp.any),
    "all": _reduction(jnp.all),
    "prod": _total(jnp.prod),
    "logsumexp": _reduction(jax.scipy.special.logsumexp),
    "max": _extreme(jnp.max, jnp.argmax),
    "min": _extreme(jnp.min, jnp.argmin),
    "argmax": _position(jnp.argmax),
    "argmin": _position(jnp.argmin),
    "var": variance,
    "std": deviation,
    "var_mean": variance_and_mean,
    "norm": norm,
    "linalg_vector_norm": norm,
    "softmax": softmax,
    "_softmax": softmax,
    "log_softmax": log_softmax,
    "_log_softmax": log_softmax,
    "cumsum": _accumulation(jnp.cumsum),
    "cumprod": _accumulation(jnp.cumprod),
    "sort": sort,
    "topk": topk,
}
