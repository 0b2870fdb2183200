"""Extracts feature maps from what a network returns.

A network returns a dict {layer: [batch, height, width, units]}. Other unambiguous forms
are accepted too: nested dicts (names joined by dots), one-tuples (as from Flax's
`capture_intermediates`), a dict beside the logits, and a bare array if one layer is
requested.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdissect.base.errors import UserError

_MOST_TOKENS = 16  # tokens without a position: a class token, registers


def of_layers(
    returned: Any, layers: Sequence[str], batch: int
) -> dict[str, Float[Array, "batch height width unit"]]:
    """Returns the feature maps of the layers, in their order.

    Args:
      returned: the network's return value for one batch.
      layers: names of the layers.
      batch: number of images in the batch.

    Raises:
      UserError: `returned` is ambiguous or of an unknown form, lacks a layer, or holds
        something that is not a feature map.
    """
    found: dict[str, Any] = {}
    for name, value in named(returned, layers):
        if name in found:
            raise UserError(f"apply returns two things under the name '{name}'")
        found[name] = value
    for name in layers:
        if name not in found:
            there = ", ".join(found) or "none"
            raise UserError(f"no layer '{name}'; there are: {there}")
    return {name: _checked(name, found[name], batch) for name in layers}


def warn_of_axes(name: str, shape: Sequence[int], mask_shape: Sequence[int]) -> None:
    """Warns if maps look as if units came before height and width.

    That is, the last two axes have the proportions of the label maps, and the axes used
    as height and width do not.

    Args:
      name: name of the layer.
      shape: shape of its feature maps, [batch, height, width, units].
      mask_shape: (height, width) of the label maps.
    """

    def off(height, width):
        return abs(math.log(height / width * mask_shape[1] / mask_shape[0]))

    _, first, second, third = shape
    if off(second, third) < off(first, second) - 1e-9:
        warnings.warn(
            f"layer '{name}' is [batch, {first}, {second}, {third}], read as height "
            f"{first}, width {second} and {third} units. Is it [batch, units, height, "
            "width]? Then return jnp.moveaxis(maps, 1, -1)",
            stacklevel=2,
        )


def named(returned: Any, layers: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of what a network returns, of any form that is understood.

    Args:
      returned: the network's return value.
      layers: names of the requested layers.

    Raises:
      UserError: `returned` is ambiguous or of an unknown form.
    """
    whole = _unwrapped(returned)
    if (mapping := mapping_in(whole)) is not None:
        yield from flat(mapping)
    elif _is_array(whole) and len(layers) == 1:
        yield layers[0], whole
    else:
        raise UserError(
            f"apply returns {_shown(returned)}; it must return a dict of feature maps, "
            "{layer: [batch, height, width, units]}, or one array if one layer is "
            "requested"
        )


def mapping_in(returned: Any) -> Mapping | None:
    """Returns the dict that a network returns, alone or beside something else."""
    whole = _unwrapped(returned)
    if isinstance(whole, tuple | list):
        dicts = [each for each in whole if isinstance(each, Mapping)]
        whole = dicts[0] if len(dicts) == 1 else whole
    return whole if isinstance(whole, Mapping) else None


def flat(tree: Mapping, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of a nested dict; names are joined by dots."""
    for key, value in tree.items():
        value = _unwrapped(value)
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _unwrapped(value: Any) -> Any:
    """Returns the content of a one-tuple or of a Flax variable."""
    while isinstance(value, tuple | list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, jax.Array) and hasattr(value, "__jax_array__"):
        return _unwrapped(value.__jax_array__())
    return value


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _checked(name: str, maps: Any, batch: int) -> Array:
    layer = f"layer '{name}'"
    if not _is_array(maps):
        several = isinstance(maps, tuple | list)
        hint = "; is a module called twice?" if several else ""
        raise UserError(
            f"{layer} is {_shown(maps)}; a feature map is one array "
            f"[batch, height, width, units]{hint}"
        )
    shape = tuple(maps.shape)
    if len(shape) != 4:
        raise UserError(
            f"{layer} has shape {shape}; a feature map is "
            f"[batch, height, width, units]{_advice(shape)}"
        )
    if shape[0] != batch:
        raise UserError(
            f"{layer} has shape {shape} for a batch of {batch} images; its first axis "
            "must be the batch: [batch, height, width, units]"
        )
    if 0 in shape:
        raise UserError(f"{layer} has shape {shape}: it is empty")
    real = jnp.issubdtype(maps.dtype, jnp.floating) or jnp.issubdtype(
        maps.dtype, jnp.integer
    )
    if not real and maps.dtype != bool:
        raise UserError(f"{layer} is {maps.dtype}; activations must be real numbers")
    return jnp.asarray(maps)


def _advice(shape: tuple[int, ...]) -> str:
    """Says how maps with another number of axes become feature maps."""
    if len(shape) == 2:
        return "; maps[:, None, None, :] has one position per image"
    if len(shape) != 3:
        return ""
    tokens = shape[1]
    for others in range(min(_MOST_TOKENS, tokens)):
        side = math.isqrt(tokens - others)
        if side * side == tokens - others and side > 1:
            left_out = f"[:, {others}:]" if others else ""
            why = f" without the {others} without position (class token, registers)"
            return (
                f". Tokens [batch, {tokens}, units]{why if others else ''} are a grid: "
                f"maps{left_out}.reshape(len(maps), {side}, {side}, -1)"
            )
    return (
        ". Tokens [batch, tokens, units] become a grid without those without position "
        "(class token, registers): maps[:, others:].reshape(len(maps), height, width, "
        "-1)"
    )


def _shown(value: Any) -> str:
    """Returns a short description of a value."""
    if _is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, tuple | list):
        parts = ", ".join(map(_shown, value[:4])) + (", ..." if len(value) > 4 else "")
        return f"a {type(value).__name__} of {len(value)} ({parts})"
    if isinstance(value, Mapping):
        return "a dict"
    return "None" if value is None else f"a {type(value).__name__}"
