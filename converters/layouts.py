"""Finds the units and the places in a layer's output, whatever its layout.

    nchw     [batch, unit, height, width], of convolutions in PyTorch
    nhwc     [batch, height, width, unit], such as Swin's
    tokens   [batch, prefix + height * width, unit], of transformers; or of attention
             heads, [batch, head, prefix + height * width, number], whose units are
             head * numbers + number
    pooled   [batch, unit], or a map of one place

Class and register tokens, the prefix, have no place and are left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from jdissect.base.errors import UserError
from jdissect.base.printable import printable

LAYOUTS = ("nchw", "nhwc", "tokens", "pooled")
AUTO = "auto"
_MOST_PREFIX = 16  # class and register tokens that are looked for


class Layout(NamedTuple):
    """Where a layer's units are.

    Attributes:
      kind: one of LAYOUTS.
      shape: (height, width, unit) of the feature map.
      prefix: tokens to leave out, of 'tokens'.
    """

    kind: str
    shape: tuple[int, int, int]
    prefix: int = 0

    def __str__(self) -> str:
        height, width, units = self.shape
        text = f"{self.kind}: {units} units on {height}x{width}"
        return text + f", without {self.prefix} prefix tokens" * bool(self.prefix)


def infer(
    name: str,
    shape: Sequence[int],
    image: tuple[int, int],
    asked: str = AUTO,
    prefix: int | None = None,
    pooled: bool = False,
    hint: int | None = None,
) -> Layout:
    """Returns the layout of a layer's output.

    Args:
      name: the layer, for messages.
      shape: shape of its output for one image, without the batch.
      image: (height, width) of the image.
      asked: a layout, or 'auto'.
      prefix: number of prefix tokens; None: as follows from the grid.
      pooled: whether an output without place is accepted as a map of 1x1.
      hint: number of prefix tokens that is tried first.

    Raises:
      UserError: the output has no such layout, several, or no place.
    """
    shape = tuple(shape)
    found = _candidates(shape, image, prefix, hint)
    if asked != AUTO:
        found = {kind: made for kind, made in found.items() if kind == asked}
        if not found and (forced := _forced(shape, asked, image, prefix)):
            found = {asked: forced}
    shown = f"layer '{printable(name)}' has the shape [{', '.join(_axes(shape))}]"
    if not found:
        wanted = "that is no feature map" if asked == AUTO else f"that is not {asked}"
        raise UserError(
            f"{shown}; {wanted} of images of {image[0]}x{image[1]}. Choose another "
            f"layer, or say how it is laid out: --layout={'|'.join(LAYOUTS)}, "
            "--prefix_tokens=N"
        )
    placed = {k: v for k, v in found.items() if v.shape[:2] != (1, 1)}
    if not placed and not pooled:
        raise UserError(
            f"{shown}: it has no place in the image. Choose a layer before the "
            "pooling, or give --pooled to count it as a map of 1x1"
        )
    found = placed or found
    if len(found) > 1:
        kinds = " or ".join(found)
        raise UserError(f"{shown}, which may be {kinds}; give --layout={name}={kinds}")
    (layout,) = found.values()
    return layout


def place(
    output: Float[Array, "batch ..."], layout: Layout
) -> Float[Array, "batch height width unit"]:
    """Returns a layer's output as a feature map, channels last.

    Args:
      output: as PyTorch lays it out, of any batch.
      layout: its layout.
    """
    if layout.kind == "nchw":
        return output.transpose(0, 2, 3, 1)
    if layout.kind == "tokens":
        if output.ndim == 4:  # heads
            output = output.transpose(0, 2, 1, 3)
        output = output[:, layout.prefix :]
    return output.reshape(output.shape[0], *layout.shape)


def parse(text: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Returns {layer: layout} for the parts of a flag: LAYOUT or LAYER=LAYOUT each.

    Raises:
      UserError: a part is not of this form, or not of one of the layers.
    """
    found = dict.fromkeys(layers, AUTO)
    for part in text:
        layer, _, kind = part.rpartition("=")
        if kind not in (AUTO, *LAYOUTS) or (layer and layer not in found):
            raise UserError(
                f"--layout={printable(part)} is not {AUTO}, {', '.join(LAYOUTS)}, or "
                "one of the layers = one of these"
            )
        found |= {layer: kind} if layer else dict.fromkeys(layers, kind)
    return found


def each(layout: str | Mapping[str, str], layers: Sequence[str]) -> dict[str, str]:
    """Returns {layer: layout} for the argument `layout` of `convert_torch`."""
    if isinstance(layout, str):
        return parse([layout], layers)
    return parse([f"{layer}={kind}" for layer, kind in layout.items()], layers)


def _axes(shape: Sequence[int]) -> list[str]:
    return ["batch", *map(str, shape)]


def _candidates(
    shape: tuple[int, ...], image: tuple[int, int], prefix: int | None, hint: int | None
) -> dict[str, Layout]:
    """Returns the layouts that the numbers of an output allow."""
    found = {}
    if len(shape) == 1:
        found["pooled"] = Layout("pooled", (1, 1, shape[0]))
    elif len(shape) == 2:
        tokens, units = shape
        if tokens == 1:
            found["pooled"] = Layout("pooled", (1, 1, units))
        elif grid := _grid_of_tokens(tokens, image, prefix, hint):
            found["tokens"] = Layout("tokens", (*grid[:2], units), grid[2])
    elif len(shape) == 3:
        first, second, third = shape
        if _is_grid(second, third, image):
            found["nchw"] = Layout("nchw", (second, third, first))
        if _is_grid(first, second, image):
            found["nhwc"] = Layout("nhwc", (first, second, third))
        grid = _grid_of_tokens(second, image, prefix, hint)
        if grid and not found and second != third:
            units = first * third
            found["tokens"] = Layout("tokens", (*grid[:2], units), grid[2])
        elif grid and [*found] == ["nchw"] and not _is_regular(second, image):
            found = {}  # attention weights, of each token for each token
    return found


def _forced(
    shape: tuple[int, ...], asked: str, image: tuple[int, int], prefix: int | None
) -> Layout | None:
    """Returns a layout that was asked for, if the number of axes allows it."""
    if asked == "nchw" and len(shape) == 3:
        return Layout(asked, (shape[1], shape[2], shape[0]))
    if asked == "nhwc" and len(shape) == 3:
        return Layout(asked, (shape[0], shape[1], shape[2]))
    if asked == "pooled" and math.prod(shape) == max(shape):
        return Layout(asked, (1, 1, max(shape)))
    if asked == "tokens" and len(shape) in (2, 3):
        grid = _grid(shape[-2] - (prefix or 0), image)
        if grid:
            units = math.prod(shape) // shape[-2]
            return Layout(asked, (*grid, units), prefix or 0)
    return None


def _grid_of_tokens(
    tokens: int, image: tuple[int, int], prefix: int | None, hint: int | None
) -> tuple[int, int, int] | None:
    """Returns (height, width, prefix), the prefix as short as possible."""
    if prefix is not None:
        grid = _grid(tokens - prefix, image)
        return (*grid, prefix) if grid else None
    for number in ([] if hint is None else [hint]) + [*range(_MOST_PREFIX + 1)]:
        grid = _grid(tokens - number, image)
        if grid and tokens - number > 1:
            return *grid, number
    return None


def _grid(places: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """Returns the grid of square patches that divides an image into `places`."""
    height = math.isqrt(max(places, 0) * image[0] // image[1])
    if height < 1 or places % height:
        return None
    width = places // height
    fits = height * image[1] == width * image[0] and image[0] % height == 0
    return (height, width) if fits else None


def _is_grid(height: int, width: int, image: tuple[int, int]) -> bool:
    """Returns whether a map may have this size: it has the image's aspect ratio."""
    off = abs(height * image[1] - width * image[0])
    return off == 0 if image[0] == image[1] else off <= max(image)


def _is_regular(height: int, image: tuple[int, int]) -> bool:
    """Returns whether rows are a whole number of pixels apart, but for the border."""
    stride = max(1, round(image[0] / height))
    return abs(image[0] / stride - height) <= max(1, 8 / stride)


def as_arrays(outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns outputs of PyTorch as arrays of JAX."""
    return {name: jax.numpy.asarray(each.numpy()) for name, each in outputs.items()}
