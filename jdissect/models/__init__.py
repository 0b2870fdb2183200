"""Networks by name, and as pure functions of their parameters.

A network is a Flax NNX module called as `model(images, endpoints=None)`, which
returns `(logits, {endpoint: feature map})`. Nothing here reads or writes files; see
`jdissect.checkpoints` for that.
"""

import functools
from collections.abc import Callable

import jax
from flax import nnx

from jdissect.errors import UserError
from jdissect.models.efficientnet_lite import EfficientNetLite0
from jdissect.models.parameters import (
    check_parameters,
    parameters,
    shapes,
    with_parameters,
)
from jdissect.models.ppm import PPM
from jdissect.models.resnet import ResNet
from jdissect.models.upernet import UPerNet

__all__ = [
    "ARCHITECTURES",
    "as_function",
    "build",
    "build_abstract",
    "check_parameters",
    "parameters",
    "shapes",
    "with_parameters",
]

ARCHITECTURES: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": functools.partial(ResNet, 18),
    "resnet34": functools.partial(ResNet, 34),
    "resnet50": functools.partial(ResNet, 50),
    "resnet101": functools.partial(ResNet, 101),
    "resnet152": functools.partial(ResNet, 152),
    "efficientnet_lite0": EfficientNetLite0,
    "upernet": UPerNet,
    "ppm": PPM,
}


def build(name: str, *, rngs: nnx.Rngs, **options) -> nnx.Module:
    """Builds a network with freshly drawn parameters.

    Args:
      name: a key of ARCHITECTURES.
      rngs: draws the parameters, e.g. `nnx.Rngs(0)`.
      **options: the network's own: classes, folded, dtype; ResNets also width.

    Raises:
      UserError: the name or an option is unknown.
    """
    builder = _builder(name)
    try:
        return builder(rngs=rngs, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"architecture {name!r} does not fit: {error}") from error


def build_abstract(name: str, **options) -> nnx.Module:
    """The network of `build` with shapes in place of arrays: takes little time."""
    _builder(name)
    rngs = _OneKey(jax.random.key(0))
    return nnx.eval_shape(lambda: build(name, rngs=rngs, **options))


class _OneKey:
    """Stands in for `nnx.Rngs` where nothing is drawn: tracing those takes seconds."""

    def __init__(self, key: jax.Array):
        self._key = key

    def params(self) -> jax.Array:
        return self._key


def _builder(name: str) -> Callable[..., nnx.Module]:
    if name not in ARCHITECTURES:
        raise UserError(
            f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def as_function(model: nnx.Module) -> tuple[Callable, nnx.State]:
    """Splits a network into a pure function and its parameters.

    Returns:
      apply, params: `apply(params, images, endpoints=None)` returns what
      `model(images, endpoints)` does. `params` is a pytree of arrays (of shapes, if
      the model is abstract). `endpoints` is static: close over it to jit.
    """
    graph, params = nnx.split(model)

    def apply(params, images, endpoints=None):
        return nnx.merge(graph, params)(images, endpoints)

    return apply, params
