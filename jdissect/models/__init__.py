"""Builds networks by name, and turns them into pure functions of their parameters.

A network is a Flax NNX module called as `model(images, endpoints=None)`, which returns
`(logits, {endpoint: feature map})`. Nothing here reads or writes files; for that see
`jdissect.checkpoints`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from jdissect.base.errors import UserError
from jdissect.models.efficientnet_lite import EfficientNetLite0
from jdissect.models.layers import fold_batch_norm
from jdissect.models.parameters import (
    check_shapes,
    parameters,
    shapes,
    with_parameters,
)
from jdissect.models.ppm import PPM
from jdissect.models.resnet import ResNet
from jdissect.models.upernet import ObjectUPerNet, UPerNet
from jdissect.ops import forms

__all__ = [
    "ARCHITECTURES",
    "as_function",
    "build",
    "build_abstract",
    "by_parts",
    "check_shapes",
    "for_inference",
    "parameters",
    "shapes",
    "with_parameters",
]

_PART_SIZES = (8, 7, 6, 5, 4)


def _object_ppm(*, objects: int, **options) -> PPM:
    """Returns a PPM that predicts objects only; options as for `ObjectUPerNet`."""
    return PPM(classes=objects, output="object", **options)


ARCHITECTURES: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": functools.partial(ResNet, 18),
    "resnet34": functools.partial(ResNet, 34),
    "resnet50": functools.partial(ResNet, 50),
    "resnet101": functools.partial(ResNet, 101),
    "resnet152": functools.partial(ResNet, 152),
    "efficientnet_lite0": EfficientNetLite0,
    "upernet": UPerNet,
    "ppm": PPM,
    "upernet_objects": ObjectUPerNet,
    "ppm_objects": _object_ppm,
}


def build(name: str, *, rngs: "nnx.Rngs | _NoKeys", **options) -> nnx.Module:
    """Builds a network with randomly initialized parameters.

    Args:
      name: a key of ARCHITECTURES.
      rngs: initializes the parameters, e.g. `nnx.Rngs(0)`.
      **options: options of the network: classes, folded, dtype; ResNets also width.

    Raises:
      UserError: the name or an option is unknown.
    """
    builder = _builder(name)
    try:
        return builder(rngs=rngs, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"cannot build architecture {name!r}: {error}") from error


def build_abstract(name: str, **options) -> nnx.Module:
    """Like `build`, with shapes in place of arrays, which takes little time."""
    _builder(name)
    return nnx.eval_shape(lambda: build(name, rngs=_NoKeys(), **options))


class _NoKeys:
    """Replaces `nnx.Rngs` where nothing is drawn."""

    def params(self) -> None:
        return None


def _builder(name: str) -> Callable[..., nnx.Module]:
    if name not in ARCHITECTURES:
        raise UserError(
            f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def as_function(model: nnx.Module) -> tuple[Callable, nnx.State]:
    """Splits a network into a pure function and its parameters.

    Returns:
      apply, params: `apply(params, images, ...)` returns what `model(images, ...)`
        does. `params` is a pytree of arrays (of shapes, if the model is abstract).
        Arguments after the images are static: close over them to jit.
    """
    graph, params = nnx.split(model)

    def apply(params, images, *arguments, **options):
        return nnx.merge(graph, params)(images, *arguments, **options)

    return apply, params


def for_inference(
    architecture: Mapping[str, Any],
    parameters: Mapping[str, np.ndarray],
    *,
    dtype: str = "float32",
    fold: bool = True,
) -> tuple[Callable, nnx.State]:
    """Returns a network in the form that runs fastest on this machine.

    Args:
      architecture: {'name': a key of ARCHITECTURES, **options of `build`}.
      parameters: all parameters of the unfolded network.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      fold: whether to fold batch normalization into the convolutions, which changes
        results only by rounding.

    Returns:
      apply, params: as `as_function`.
    """
    # `epsilon`, `unfolded` and `prepare` are the networks', not of all modules.
    model: Any = build_abstract(**architecture, folded=fold, dtype=dtype)
    if fold:
        unfolded = getattr(model, "unfolded", None)
        parameters = fold_batch_norm(dict(parameters), model.epsilon, unfolded)
    apply, params = as_function(model)
    params = with_parameters(params, parameters)
    if fold and dtype == "float32" and forms.on_cpu() and hasattr(model, "prepare"):
        graph, _ = nnx.split(model)
        model = nnx.merge(graph, params)
        model.prepare()
        apply, params = as_function(model)
    return apply, params


def by_parts(apply: Callable[[Any, jax.Array], Any]) -> Callable:
    """Applies a network to a few images at a time, on a CPU.

    Their feature maps stay in cache: ResNet-50 takes a tenth less time than with 32
    images at once. On other devices, and if the batch has no good divisor, this is
    `apply` itself.

    Args:
      apply: (params, images) -> pytree of arrays, all with a leading axis of images.
    """

    def run(params, images):
        count = len(images)
        size = next((n for n in _PART_SIZES if count > n and count % n == 0), None)
        if size is None or not forms.on_cpu():
            return apply(params, images)
        parts = images.reshape(count // size, size, *images.shape[1:])
        found = jax.lax.map(lambda part: apply(params, part), parts)
        return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), found)

    return run
