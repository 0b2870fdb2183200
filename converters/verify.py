"""Compares a converted network with PyTorch, output by output."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jdissect.converters.convert import Source
from jdissect.converters.torch_files import import_torch

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.runtime.devices import in_32_bits

TOLERANCE = 1e-3
BATCH, SIDE = 2, 224


@in_32_bits
def compare(
    twin,
    sources: Sequence[Source],
    architecture: Mapping[str, Any],
    parameters: Mapping[str, np.ndarray],
    scale: float = 1.0,
    side: int | None = None,
    **options,
) -> None:
    """Runs both on the same random images and prints the largest differences.

    The converted network runs as in a dissection. Differences are relative to the
    largest absolute value of PyTorch's output.

    Args:
      twin: the network in PyTorch, `twin(images)`. It returns {name: output} or, for a
        classifier, (logits, {endpoint: map}).
      sources: sources of the tensors to load into the twin.
      architecture: name and options of the network in Flax.
      parameters: the converted parameters.
      scale: standard deviation of the image channels.
      side: side of the images in pixels; None: SIDE.
      **options: options for calling the network in Flax.

    Raises:
      UserError: a relative difference is above TOLERANCE, or not a number.
    """
    shape = (BATCH, side or SIDE, side or SIDE, architecture.get("in_channels", 3))
    images = np.random.default_rng(0).normal(0, scale, shape)
    images = images.astype(np.float32)
    expected = _run_torch(twin, sources, images)
    actual = _run_jax(architecture, parameters, images, options)
    print(f"{'':10}{'largest':>12}{'difference':>14}{'relative':>12}")
    worst = {}
    for name in expected:
        largest = float(np.abs(expected[name]).max())
        difference = float(np.abs(actual[name] - expected[name]).max())
        relative = difference / largest if largest else difference
        print(f"{name:10}{largest:12.4g}{difference:14.3g}{relative:12.3g}")
        if not relative <= TOLERANCE:
            worst[name] = relative
    if worst:
        where = ", ".join(f"{name} {value:.3g}" for name, value in worst.items())
        raise UserError(
            f"the converted network differs from PyTorch's by more than {TOLERANCE:g}: "
            f"{where}.\nNothing was written. Please report this with the file's source."
        )


def _run_torch(twin, sources, images) -> dict[str, np.ndarray]:
    torch = import_torch()
    state = {
        source.prefix + name: torch.from_numpy(np.array(source.tensors[name]))
        for source in sources
        for name in source.mapping
    }
    missing, unexpected = twin.load_state_dict(state, strict=False)
    for source in sources:
        missing = [k for k in missing if not source.is_unused(k)]
    if missing or unexpected:
        raise AssertionError(f"the twin does not fit: {missing} {unexpected}")
    with torch.inference_mode():
        outputs = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    found = {name: output.numpy() for name, output in _by_name(outputs).items()}
    return {k: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for k, v in found.items()}


def _run_jax(architecture, parameters, images, options) -> dict[str, np.ndarray]:
    apply, params = models.for_inference(architecture, parameters)
    run = jax.jit(lambda params, images: apply(params, images, **options))
    outputs = run(params, images)
    return {name: np.asarray(output) for name, output in _by_name(outputs).items()}


def _by_name(outputs) -> dict[str, Any]:
    if isinstance(outputs, dict):
        return outputs
    logits, maps = outputs
    return maps if logits is None else maps | {"logits": logits}
