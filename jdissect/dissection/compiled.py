"""Compiles a caller's network once, and caches it as long as the function lives.

Compiling a network takes longer than dissecting a few images, so the program compiled
for a function, its layers and shapes is kept for the next call. The cache holds only
weak references to functions, so it keeps nothing alive.

A function may depend on what its arguments do not show (a module in training mode, an
array of an enclosing scope). So every call traces it again, which is cheap, and the
compiled program is reused only if the trace is the same.
"""

import functools
import hashlib
import re
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jdissect.dissection.feature_maps import of_layers
from jdissect.runtime.devices import Step

# id of a function, or of a method's object -> (weak reference, {key: (trace, step)}).
_KEPT: dict[int, tuple[weakref.ref, dict]] = {}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Network:
    """A caller's `apply`, traced.

    Args:
      apply: (params, images) -> a value that `feature_maps.of_layers` accepts.
      layers: names of the feature maps.
      params: a pytree of arrays.
    """

    def __init__(self, apply: Callable[[Any, Any], Any], layers: Sequence[str], params):
        self._apply, self._layers, self._params = apply, tuple(layers), params
        self._traced: dict[Any, tuple[ClosedJaxpr, Any]] = {}

    def maps(self, pixels: jax.ShapeDtypeStruct) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of the layers' feature maps for a batch.

        Raises:
          UserError: `apply` does not return feature maps of these layers.
        """
        return self._trace(pixels)[1]

    def makes_maps(self, pixels: jax.ShapeDtypeStruct) -> bool:
        """Returns whether `apply` accepts such an array as a batch."""
        try:
            self.maps(pixels)
        except Exception:  # networks raise anything for bad input
            return False
        return True

    def step(self, pixels: jax.ShapeDtypeStruct) -> Step:
        """Returns `(state, images, params) -> {layer: maps}` for one device's shard."""
        steps = _steps_of(self._apply)
        key = (
            self._layers,
            _signature(pixels),
            jax.tree.structure(self._params),
            *map(_signature, jax.tree.leaves(self._params)),
        )
        trace = _fingerprint(self._trace(pixels)[0])
        if trace is None or key not in steps or steps[key][0] != trace:
            steps[key] = trace, Step(_forward(_weakly(self._apply), self._layers))
        return steps[key][1]

    def _trace(self, pixels):
        dtype = jax.dtypes.canonicalize_dtype(pixels.dtype)  # as on the device
        pixels = jax.ShapeDtypeStruct(pixels.shape, dtype)
        signature = _signature(pixels)
        if signature not in self._traced:
            # A new function each time, as JAX caches traces by function.
            def forward(params, images):
                return of_layers(self._apply(params, images), self._layers, len(images))

            self._traced[signature] = jax.make_jaxpr(forward, return_shape=True)(
                self._params, pixels
            )
        return self._traced[signature]


def _forward(function: Callable[[], Callable | None], layers: tuple[str, ...]):
    def forward(state, images, params):
        del state
        apply = function()
        assert apply is not None  # its caller holds it
        return of_layers(apply(params, images), layers, len(images))

    return forward


def _signature(array: Any) -> tuple:
    return tuple(np.shape(array)), str(getattr(array, "dtype", type(array)))


def _steps_of(apply: Callable) -> dict:
    """Returns a function's cache; an empty one if it supports no weak references."""
    holder = getattr(apply, "__self__", None) if _is_method(apply) else apply
    place = id(holder)
    known = _KEPT.get(place)
    if known is None or known[0]() is not holder:
        try:
            reference = weakref.ref(holder, functools.partial(_forget, place))
        except TypeError:
            return {}
        _KEPT[place] = known = reference, {}
    if not _is_method(apply):
        return known[1]
    return known[1].setdefault(apply.__func__, {})


def _forget(place: int, reference: weakref.ref) -> None:
    if place in _KEPT and _KEPT[place][0] is reference:
        del _KEPT[place]


def _is_method(apply: Callable) -> TypeGuard[types.MethodType]:
    return hasattr(apply, "__self__") and hasattr(apply, "__func__")


def _weakly(apply: Callable) -> Callable[[], Callable | None]:
    try:
        return weakref.WeakMethod(apply) if _is_method(apply) else weakref.ref(apply)
    except TypeError:
        return lambda: apply


def _fingerprint(trace: ClosedJaxpr) -> tuple[str, str] | None:
    """Returns what two traces of a function share if they compute the same.

    None if that cannot be decided: the program calls back into Python.
    """
    text = str(trace.jaxpr)
    if "callback" in text:
        return None
    digest = hashlib.sha256()
    for constant in _constants(trace):
        try:
            if jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
                constant = jax.random.key_data(constant)
            array = np.asarray(constant)
        except (AttributeError, TypeError, ValueError):
            return None
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return _ADDRESS.sub("", text), digest.hexdigest()


def _constants(value: Any) -> Iterator[Any]:
    """Yields the arrays that a program holds, including those of inner programs."""
    if isinstance(value, ClosedJaxpr | Jaxpr):  # one class since JAX 0.12
        yield from getattr(value, "consts", ())
        for equation in value.eqns:
            literals = [x.val for x in equation.invars if isinstance(x, Literal)]
            yield from _constants([literals, list(equation.params.values())])
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _constants(part)
    elif isinstance(value, np.ndarray | jax.Array):
        yield value
