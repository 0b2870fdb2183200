"""From PyTorch's tensors to our parameters, with every one of both accounted for."""

import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from jdissect.errors import UserError
from jdissect.models.parameters import listed

# Counts batches in training; files older than PyTorch 0.4.1 do not have it.
UNUSED = re.compile(r"(^|\.)num_batches_tracked$")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a tensor goes: a parameter's name, and its axes in PyTorch's order.

    `axes[i]` is the tensor's axis that becomes the parameter's axis i.
    """

    parameter: str
    axes: tuple[int, ...]


def convolution(tensor: str, parameter: str) -> dict[str, Target]:
    """A kernel without bias: OIHW to HWIO; depthwise [C, 1, H, W] to [H, W, 1, C]."""
    return {f"{tensor}.weight": Target(f"{parameter}.kernel", (2, 3, 1, 0))}


def batch_norm(tensor: str, parameter: str) -> dict[str, Target]:
    """Scale, bias and the two statistics."""
    names = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    }
    return {
        f"{tensor}.{theirs}": Target(f"{parameter}.{ours}", (0,))
        for theirs, ours in names.items()
    }


def conv_norm(conv: str, norm: str, parameter: str) -> dict[str, Target]:
    """A `ConvNorm` at `parameter` from a convolution and a normalization."""
    return convolution(conv, f"{parameter}.conv") | batch_norm(
        norm, f"{parameter}.norm"
    )


def linear(tensor: str, parameter: str) -> dict[str, Target]:
    """A linear layer with bias: [out, in] to [in, out]."""
    return {
        f"{tensor}.weight": Target(f"{parameter}.kernel", (1, 0)),
        f"{tensor}.bias": Target(f"{parameter}.bias", (0,)),
    }


def convert(
    tensors: Mapping[str, np.ndarray],
    mapping: Mapping[str, Target],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    where: str,
    ignore: str = "",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Converts tensors to parameters.

    Args:
      tensors: name -> array in PyTorch's layout.
      mapping: tensor's name -> target, for every parameter of the network.
      shapes: the network's parameters and their shapes.
      where: the file, for messages.
      ignore: regular expression; unknown tensors with a match in their name are
        left out. It never leaves out a tensor the network needs.

    Returns:
      parameters, float32, in the network's order of names; and the names of the
      tensors left out because of `ignore`.

    Raises:
      UserError: tensors are missing, misshapen, unknown, not floating-point or not
        finite, by name; or `ignore` is no regular expression.
    """
    targets = [target.parameter for target in mapping.values()]
    if sorted(targets) != sorted(shapes):
        odd = sorted(set(targets) ^ set(shapes))
        raise AssertionError(f"the mapping does not fit the network: {listed(odd)}")
    pattern = _compile(ignore)
    unknown = [k for k in tensors if k not in mapping and not UNUSED.search(k)]
    ignored = [k for k in unknown if pattern is not None and pattern.search(k)]
    problems = {
        "lacks": [k for k in mapping if k not in tensors],
        "has misshapen": _misshapen(tensors, mapping, shapes),
        "has unknown": sorted(set(unknown) - set(ignored)),
    }
    found = [f"{what} {_tensors(names)}" for what, names in problems.items() if names]
    if found:
        advice = ""
        if problems["has unknown"] and len(found) == 1:
            advice = "\nIf they may be left out, say so with --ignore=REGEX."
        raise UserError(f"{where} {'; '.join(found)}.{advice}")
    _check_values({k: tensors[k] for k in mapping}, where)
    parameters = {
        target.parameter: np.ascontiguousarray(
            tensors[name].transpose(target.axes), dtype=np.float32
        )
        for name, target in mapping.items()
    }
    return {name: parameters[name] for name in shapes}, ignored


def _compile(ignore: str) -> re.Pattern | None:
    if not ignore:
        return None
    try:
        return re.compile(ignore)
    except re.error as error:
        raise UserError(
            f"--ignore={ignore} is no regular expression: {error}"
        ) from error


def _misshapen(tensors, mapping, shapes) -> list[str]:
    wrong = []
    for name, target in mapping.items():
        if name not in tensors:
            continue
        needed = [0] * len(target.axes)
        for axis, size in zip(target.axes, shapes[target.parameter], strict=True):
            needed[axis] = size
        if list(tensors[name].shape) != needed:
            wrong.append(f"{name} {list(tensors[name].shape)}, needed {needed}")
    return wrong


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}: {listed(names)}"


def _check_values(tensors: Mapping[str, np.ndarray], where: str) -> None:
    tests: dict[str, Callable[[np.ndarray], bool]] = {
        "that are not floating-point": lambda a: a.dtype.kind == "f",
        "with infinite or undefined values": lambda a: bool(np.isfinite(a).all()),
    }
    for what, good in tests.items():
        bad = [name for name, array in tensors.items() if not good(array)]
        if bad:
            raise UserError(f"{where} has {_tensors(bad)} {what}.")
