"""Translates a PyTorch module into a JAX function that returns its layers' outputs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jdissect.converters.torch_files import import_torch
from jdissect.converters.torch_graph import interpret, trace
from jdissect.converters.torch_graph.operators import OPERATORS
from jdissect.converters.torch_graph.simplify import simplify

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.runtime.devices import in_32_bits

# At most so many integers are written into the function itself.
_TINY = 4096


@dataclasses.dataclass(frozen=True)
class Translated:
    """A PyTorch module as a JAX function.

    Attributes:
      apply: `apply(params, images)` -> {layer: its output}. Images are normalized,
        [batch, height, width, channel]; a module's input of another rank is given as
        in PyTorch. Outputs are in PyTorch's own layout, the batch first; '' is the
        module's own output if that is one array [batch, classes], or for latents one of
        images, else absent. With
        params and images in bfloat16 it computes in bfloat16, as PyTorch does: sums of
        products, normalizations and softmax in float32. It can be compiled, and traced
        with a symbolic batch size.
      params: name -> float32 array, named as in the module; batch normalization is
        folded into convolutions, and kernels of convolutions are [height, width, in,
        out]. Larger arrays of integers are among them.
      shapes: layer -> shape of its output for the example.
    """

    apply: Callable[[dict[str, jax.Array], Float[Array, "batch ..."]], dict[str, Any]]
    params: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]


@in_32_bits
def translate(module: Any, example: Any, layers: Sequence[str]) -> Translated:
    """Translates a module.

    Args:
      module: a torch.nn.Module whose forward takes one tensor. It is translated as in
        evaluation mode; its state is not changed.
      example: torch.Tensor float32[batch, channel, height, width], normalized; another
        rank for a module whose input is not an image, such as a generator.
      layers: dotted names of submodules, as in `module.named_modules()`.

    Raises:
      UserError: a layer does not exist, has several outputs or calls; the module
        branches on data, fixes the batch size, or uses what has no translation.
    """
    torch = import_torch()
    example = torch.as_tensor(example)
    batch = example.shape[0]
    # Torch takes a size of 1 for a constant.
    several = torch.cat([example[:1]] * 2) if batch < 2 else example[:2]
    layers = list(dict.fromkeys(layers))
    calls = trace.record(module, several)
    trace.check_layers(module, calls, layers, len(several))
    graph, params = trace.trace(module, several, layers, OPERATORS)
    interpret.check(graph)
    graph, params = simplify(graph, params)
    tiny = {k: v for k, v in params.items() if v.dtype.kind != "f" and v.size <= _TINY}
    params = {name: array for name, array in params.items() if name not in tiny}

    def apply(params, images):
        return interpret.run(graph, {**tiny, **params}, images)

    _check_symbolic(apply, params, several, type(module).__name__)
    shapes = {layer: (batch, *calls[layer][0].shapes[0][1:]) for layer in layers}
    return Translated(apply, params, shapes)


def layer_shapes(module: Any, example: Any) -> dict[str, tuple[int, ...]]:
    """Returns the layers that `translate` takes, with the shapes of their outputs.

    Args:
      module: a torch.nn.Module.
      example: torch.Tensor float32[batch, channel, height, width], normalized.

    Returns:
      dotted name -> shape, in the order in which the layers finish. Layers that are
      called several times, or that return several tensors or no batch, are left out.

    Raises:
      UserError: the module fails on the example.
    """
    torch = import_torch()
    batch = example.shape[0]
    # Two images tell the batch from a dimension of size 1.
    several = torch.cat([example[:1]] * 2) if batch < 2 else example[:2]
    found = {}
    for name, calls in trace.record(module, several).items():
        shape = calls[0].shapes[0] if calls[0].single else ()
        if len(calls) == 1 and shape[:1] == (2,):
            found[name] = (batch, *shape[1:])
    return found


def _check_symbolic(apply, params, example, kind: str) -> None:
    """Checks that the function can be traced for any batch size."""
    shape = tuple(example.shape)
    shape = (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape[1:]), jnp.float32)
    try:
        found = jax.eval_shape(apply, params, images)
    except UserError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{kind} cannot be translated for any batch size: "
            f"{printable(f'{type(error).__name__}: {first}')}"
        ) from error
    for name, output in found.items():
        if not output.shape or output.shape[0] != batch:
            raise UserError(
                f"the output of layer {printable(name)!r} of {kind} has shape "
                f"{printable(str(output.shape))}; its first dimension must be the batch"
            )
