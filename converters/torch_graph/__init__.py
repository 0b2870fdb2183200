"""Translates PyTorch modules to JAX: any network that `torch.export` takes.

`translate` exports a module with the outputs of the layers asked for (`trace`), writes
the operators as plain data (`program`, `graph`), folds what can be folded (`simplify`),
and runs them in JAX (`interpret`, `operators`, `values`). PyTorch is needed for the
translation only.
"""

from jdissect.converters.torch_graph.trace import is_latent
from jdissect.converters.torch_graph.translate import (
    Translated,
    layer_shapes,
    translate,
)

__all__ = ["Translated", "is_latent", "layer_shapes", "translate"]
