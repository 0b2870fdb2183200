"""Compares translated modules with PyTorch, layer by layer."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jdissect.converters import torch_graph


def randomize(module, seed: int = 0):
    """Gives norms, biases and statistics random values; returns the module."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim <= 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        elif not parameter.data.any():
            parameter.data.normal_(0, 0.02, generator=draw)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=draw)
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2, generator=draw)
    return module.eval().requires_grad_(False)


def by_torch(module, images, layers) -> dict[str, np.ndarray]:
    """Returns the layers' outputs as PyTorch computes them, in float32."""
    found, hooks = {}, []

    def keep(name):
        def hook(_module, _arguments, output):
            tensor = output[0] if isinstance(output, tuple) else output
            found[name] = tensor.clone().float().numpy()

        return hook

    for name in layers:
        part = module.get_submodule(name)
        hooks.append(part.register_forward_hook(keep(name)))
    with torch.no_grad():
        own = module(images)
    for hook in hooks:
        hook.remove()
    own = getattr(own, "logits", own)
    rank = 4 if images.ndim == 2 else 2  # a generator's images, or logits
    if isinstance(own, torch.Tensor) and own.ndim == rank:
        found[""] = own.float().numpy()
    return found


def as_jax(images) -> jax.Array:
    """Returns images in the order that translated modules take."""
    array = jnp.asarray(images.numpy())
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def by_jax(translated, images, dtype=jnp.float32) -> dict[str, np.ndarray]:
    """Returns the same of the translated module, compiled, in the given type."""
    params = jax.tree.map(
        lambda array: array.astype(dtype) if array.dtype == np.float32 else array,
        translated.params,
    )
    found = jax.jit(translated.apply)(params, as_jax(images).astype(dtype))
    return {
        name: np.asarray(array.astype(jnp.float32)) for name, array in found.items()
    }


def largest(actual, expected) -> dict[str, float]:
    """Returns the largest differences relative to the largest values."""
    assert actual.keys() == expected.keys()
    return {name: _relative(actual[name], expected[name], np.max) for name in expected}


def typical(actual, expected) -> dict[str, float]:
    """Returns the root mean square differences relative to the largest values."""

    def root_mean_square(array):
        return np.sqrt(np.mean(array**2))

    return {
        name: _relative(actual[name], expected[name], root_mean_square)
        for name in expected
    }


def _relative(actual, expected, norm) -> float:
    assert actual.shape == expected.shape
    scale = np.abs(expected).max() or 1
    return float(norm(np.abs(actual - expected)) / scale)


def compare(module, images, layers):
    """Returns what a table shows: {layer: (float32, bfloat16 ours, theirs)}.

    The first is the largest difference, the others are root mean squares, all of them
    from PyTorch's float32.
    """
    translated = torch_graph.translate(module, images, layers)
    expected = by_torch(module, images, layers)
    exact = largest(by_jax(translated, images), expected)
    half = copy.deepcopy(module).bfloat16()
    ours = typical(by_jax(translated, images, jnp.bfloat16), expected)
    theirs = typical(by_torch(half, images.bfloat16(), layers), expected)
    return translated, {n: (exact[n], ours[n], theirs[n]) for n in expected}
