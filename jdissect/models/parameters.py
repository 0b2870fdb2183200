"""Reads and sets a network's parameters by name ('layer1.0.conv1.norm.scale')."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdissect.base.errors import UserError
from jdissect.base.printable import listed


def shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Returns every parameter's and statistic's shape; the model may be abstract."""
    flat = _flat(nnx.state(model))
    return {name: tuple(variable.shape) for name, variable in flat.items()}


def parameters(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns every parameter and statistic, on the host."""
    flat = _flat(nnx.state(model))
    return {name: np.asarray(variable[...]) for name, variable in flat.items()}


def with_parameters(params: nnx.State, values: Mapping[str, np.ndarray]) -> nnx.State:
    """Returns the pytree `params` with all its arrays replaced by those of `values`."""
    flat = [
        (path, variable.replace(jnp.asarray(values[_name(path)])))
        for path, variable in nnx.to_flat_state(params)
    ]
    return nnx.from_flat_state(flat)


def check_shapes(
    found: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
) -> None:
    """Raises UserError if parameters are missing, unknown or misshapen, naming them.

    Args:
      found: name and shape of the parameters to check.
      shapes: name and shape of the network's parameters.
      where: beginning of the message.
    """
    problems = {
        "lacks parameters": [k for k in shapes if k not in found],
        "has unknown parameters": [k for k in found if k not in shapes],
        "has misshapen parameters": [
            f"{k} {list(found[k])}, needed {list(shapes[k])}"
            for k in shapes
            if k in found and found[k] != shapes[k]
        ],
    }
    lines = [f"{what}: {listed(names)}" for what, names in problems.items() if names]
    if lines:
        raise UserError(f"{where} {'; '.join(lines)}")


def _flat(state: nnx.State) -> dict[str, nnx.Variable]:
    return {_name(path): variable for path, variable in nnx.to_flat_state(state)}


def _name(path: tuple) -> str:
    return ".".join(map(str, path))
