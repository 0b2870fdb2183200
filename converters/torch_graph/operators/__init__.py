"""Translates PyTorch's operators: name in ATen -> function of arrays or `Maps`."""

from collections.abc import Callable

from jdissect.converters.torch_graph.operators import (
    convolution,
    creation,
    elementwise,
    normalization,
    pooling,
    products,
    reductions,
    resize,
    shapes,
)

_PARTS = (
    elementwise,
    convolution,
    normalization,
    pooling,
    resize,
    products,
    reductions,
    shapes,
    creation,
)

OPERATORS: dict[str, Callable] = {
    name: function for part in _PARTS for name, function in part.OPERATORS.items()
}
