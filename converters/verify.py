"""Compares a converted network with PyTorch, endpoint by endpoint."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from converters.torch_files import import_torch
from jdissect import models
from jdissect.errors import UserError
from jdissect.models.layers import fold_batch_norm

TOLERANCE = 1e-3
BATCH, SIDE = 2, 224


def compare(
    twin,
    tensors: Mapping[str, np.ndarray],
    architecture: Mapping[str, Any],
    parameters: Mapping[str, np.ndarray],
) -> None:
    """Runs both on the same random images and prints the largest differences.

    The converted network runs as dissection runs it, batch normalization folded.
    Relative differences are over the largest absolute value that PyTorch gives.

    Args:
      twin: the network in PyTorch, `twin(images) -> (logits, {endpoint: map})`.
      tensors: the file's, which are loaded into the twin.
      architecture: name and options of the network in Flax.
      parameters: the converted ones.

    Raises:
      UserError: a relative difference is above TOLERANCE, or not a number.
    """
    images = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 3))
    images = images.astype(np.float32)
    expected = _run_torch(twin, tensors, images)
    actual = _run_jax(architecture, parameters, images)
    print(f"{'':10}{'largest':>12}{'difference':>14}{'relative':>12}")
    worst = {}
    for name in expected:
        ours = actual[name]
        largest = float(np.abs(expected[name]).max())
        difference = float(np.abs(ours - expected[name]).max())
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


def _run_torch(twin, tensors, images) -> dict[str, np.ndarray]:
    torch = import_torch()
    state = {name: torch.from_numpy(np.array(tensors[name])) for name in tensors}
    missing, unexpected = twin.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise AssertionError(f"the twin does not fit: {missing} {unexpected}")
    with torch.inference_mode():
        logits, features = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    maps = {k: v.numpy().transpose(0, 2, 3, 1) for k, v in features.items()}
    return maps | {"logits": logits.numpy()}


def _run_jax(architecture, parameters, images) -> dict[str, np.ndarray]:
    model = models.build_abstract(**architecture, folded=True)
    folded = fold_batch_norm(dict(parameters), model.epsilon)
    apply, params = models.as_function(model)
    logits, features = jax.jit(apply)(models.with_parameters(params, folded), images)
    return {k: np.asarray(v) for k, v in features.items()} | {
        "logits": np.asarray(logits)
    }
