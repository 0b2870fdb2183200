"""Loads the weights of a checkpoint into a PyTorch module, and accounts for all."""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jdissect.converters import choice, convert

_NEEDED = 0.5  # share of a module's names that must be there to be recognized


def roots_of(module: Any) -> Callable[[Collection[str]], list[str]]:
    """Returns the function that finds such a network in a file, for `choice.take`."""
    needed = {name for name, array in module.state_dict().items() if array.ndim}

    def roots(names: Collection[str]) -> list[str]:
        there = set(names)
        anchor = next((name for name in needed if name in there), None)
        prefixes = {""} if anchor else set()
        for end in sorted(needed, key=len, reverse=True)[:5]:
            found = (n for n in there if n.endswith(f".{end}"))
            prefixes |= {name.removesuffix(end) for name in found}
        return sorted(p for p in prefixes if _share(needed, p, there) >= _NEEDED)

    return roots


def _share(needed: Collection[str], prefix: str, there: Collection[str]) -> float:
    return sum(prefix + name in there for name in needed) / max(1, len(needed))


def load(
    module: Any,
    taken: choice.Taken,
    ignore: str = "",
    again: Callable[[int], Any] | None = None,
) -> tuple[Any, list[str]]:
    """Returns the module with the weights of a file, and the tensors left out.

    Args:
      module: the module.
      taken: tensors of the file.
      ignore: regular expression of unknown tensors to leave out.
      again: makes the module for another number of classes. It is asked if the file
        has another number than the module, and all else fits.

    Raises:
      UserError: tensors are missing, misshapen, unknown or not finite, by name.
    """
    import torch

    tensors = _as_the_module_names_them(module, taken.tensors)
    state = _state(module)
    if again is not None and (classes := _other_classes(state, tensors)):
        module = again(classes).eval()
        state = _state(module)
    counted = {name for name, array in state.items() if array.dtype.kind == "f"}
    mapping = {
        name: convert.Target(name, tuple(range(state[name].ndim))) for name in counted
    }
    # Counters and index tables are the module's own.
    rest = [name for name in state if name not in counted]
    unused = "|".join([convert.UNUSED, *(f"^{re.escape(name)}$" for name in rest)])
    source = convert.Source(taken.where, tensors, mapping, unused=unused)
    shapes = {name: state[name].shape for name in sorted(counted)}
    arrays, ignored = convert.convert([source], shapes, ignore)
    module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False
    )
    return module, ignored


def _state(module: Any) -> dict[str, np.ndarray]:
    """Returns a module's state; what shares memory under two names is under both."""
    return {
        name: tensor.detach().float().numpy()
        if tensor.is_floating_point()
        else tensor.detach().numpy()
        for name, tensor in module.state_dict().items()
    }


def _as_the_module_names_them(
    module: Any, tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Applies the filter with which timm's modules take other programs' files."""
    if module.state_dict().keys() <= tensors.keys() and _fits(module, tensors):
        return tensors
    code = sys.modules.get(type(module).__module__)
    change = getattr(code, "checkpoint_filter_fn", None)
    if change is None:
        return tensors
    import torch

    try:
        given = {name: torch.from_numpy(array) for name, array in tensors.items()}
        changed = change(given, module)
        return {name: tensor.numpy() for name, tensor in changed.items()}
    except Exception:  # the file is not what the filter is for
        return tensors


def _fits(module: Any, tensors: Mapping[str, np.ndarray]) -> bool:
    return all(
        tuple(tensors[name].shape) == tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
    )


def _other_classes(
    state: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]
) -> int | None:
    """Returns the file's number of classes if it is all that does not fit."""
    off = [k for k in state if k in tensors and tensors[k].shape != state[k].shape]
    sizes = {
        (state[k].shape[0], tensors[k].shape[0])
        for k in off
        if state[k].ndim and tensors[k].shape[1:] == state[k].shape[1:]
    }
    if len(sizes) != 1 or not all(
        tensors[k].shape[1:] == state[k].shape[1:] for k in off
    ):
        return None
    ((_, theirs),) = sizes
    return theirs
