"""Converts PyTorch tensors to Flax parameters, and accounts for every one of both."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jdissect.base.errors import UserError
from jdissect.base.printable import listed

# Counters of batches in training (missing before PyTorch 0.4.1), and of averaged
# models; sums of Synchronized-BatchNorm-PyTorch, whose quotients are the statistics.
UNUSED = (
    r"(^|\.)(num_batches_tracked|n_averaged"
    r"|_tmp_running_mean|_tmp_running_var|_running_iter)$"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Target of a tensor: a parameter's name, and its axes in PyTorch's order.

    `axes[i]` is the tensor axis that becomes the parameter's axis i. The tensor has
    `ones` further axes of size 1 at the end, which the parameter lacks.
    """

    parameter: str
    axes: tuple[int, ...]
    ones: int = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """A file's tensors, and the target of each.

    Attributes:
      where: the file, for messages.
      tensors: name -> array in PyTorch's layout.
      mapping: tensor name -> target.
      prefix: prefix of its tensor names in the twin.
      unused: regular expression; tensors with a match in their name are known but not
        needed, like those of UNUSED.
    """

    where: str
    tensors: Mapping[str, np.ndarray]
    mapping: Mapping[str, Target]
    prefix: str = ""
    unused: str = UNUSED

    def is_unused(self, name: str) -> bool:
        return bool(re.search(UNUSED, name) or re.search(self.unused, name))


def convolution(tensor: str, parameter: str) -> dict[str, Target]:
    """Maps a kernel without bias: OIHW to HWIO; depthwise C1HW to HW1C."""
    return {f"{tensor}.weight": Target(f"{parameter}.kernel", (2, 3, 1, 0))}


def batch_norm(tensor: str, parameter: str) -> dict[str, Target]:
    """Maps scale, bias and the two statistics."""
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
    """Maps a convolution and a normalization to a `ConvNorm` at `parameter`."""
    return convolution(conv, f"{parameter}.conv") | batch_norm(
        norm, f"{parameter}.norm"
    )


def linear(tensor: str, parameter: str) -> dict[str, Target]:
    """Maps a linear layer with bias: [out, in] to [in, out]."""
    return {
        f"{tensor}.weight": Target(f"{parameter}.kernel", (1, 0)),
        f"{tensor}.bias": Target(f"{parameter}.bias", (0,)),
    }


def pointwise_linear(tensor: str, parameter: str) -> dict[str, Target]:
    """Maps a biased 1x1 convolution to a linear layer: [out, in, 1, 1] to [in, out]."""
    return linear(tensor, parameter) | {
        f"{tensor}.weight": Target(f"{parameter}.kernel", (1, 0), ones=2)
    }


def convert(
    sources: Sequence[Source],
    shapes: Mapping[str, tuple[int, ...]],
    ignore: str = "",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Converts tensors to parameters.

    Args:
      sources: sources whose targets together are all parameters of the network.
      shapes: the network's parameters and their shapes.
      ignore: regular expression; unknown tensors with a match in their name are left
        out. Tensors that the network needs are never left out.

    Returns:
      parameters, float32, in the network's order of names, and the names of the
      tensors left out because of `ignore`.

    Raises:
      UserError: tensors are missing, misshapen, unknown, not floating-point or not
        finite, by name; or `ignore` is not a regular expression.
    """
    targets = [t.parameter for source in sources for t in source.mapping.values()]
    if sorted(targets) != sorted(shapes):
        odd = sorted(set(targets) ^ set(shapes))
        raise AssertionError(f"the mapping does not fit the network: {listed(odd)}")
    pattern = _compile(ignore)
    ignored = [name for source in sources for name in _check(source, shapes, pattern)]
    parameters = {
        target.parameter: np.ascontiguousarray(
            _without_ones(source.tensors[name], target).transpose(target.axes),
            dtype=np.float32,
        )
        for source in sources
        for name, target in source.mapping.items()
    }
    return {name: parameters[name] for name in shapes}, ignored


def _check(source: Source, shapes, pattern: re.Pattern | None) -> list[str]:
    """Accounts for a file's tensors; returns those to ignore."""
    tensors, mapping = source.tensors, source.mapping
    unknown = [k for k in tensors if k not in mapping and not source.is_unused(k)]
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
            advice = "\nTo leave them out, give --ignore=REGEX."
        raise UserError(f"{source.where} {'; '.join(found)}.{advice}")
    _check_values({k: tensors[k] for k in mapping}, source.where)
    return ignored


def _without_ones(tensor: np.ndarray, target: Target) -> np.ndarray:
    return tensor.reshape(tensor.shape[: len(target.axes)])


def _compile(ignore: str) -> re.Pattern | None:
    if not ignore:
        return None
    try:
        return re.compile(ignore)
    except re.error as error:
        raise UserError(
            f"--ignore={ignore} is not a regular expression: {error}"
        ) from error


def _misshapen(tensors, mapping, shapes) -> list[str]:
    wrong = []
    for name, target in mapping.items():
        if name not in tensors:
            continue
        needed = [0] * len(target.axes)
        for axis, size in zip(target.axes, shapes[target.parameter], strict=True):
            needed[axis] = size
        needed += [1] * target.ones
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
