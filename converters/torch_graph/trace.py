"""Exports a PyTorch module and the outputs of its layers as a `graph.Graph`.

`torch.export` runs the module once on tensors without data and records the operators;
hooks collect the layers' outputs, as copies, since a later operator may change them in
place. The recorded operators are PyTorch's own (ATen). If `program` cannot write them
as they are, or if an operator is not translated, PyTorch rewrites them first
(`run_decompositions`), which takes several times as long.
"""

import contextlib
import dataclasses
import difflib
import logging
import re
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from jdissect.converters.torch_files import import_torch
from jdissect.converters.torch_graph import graph as graphs
from jdissect.converters.torch_graph import program

from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable


@dataclasses.dataclass(frozen=True)
class Call:
    """What one call of a submodule returned: tensors' shapes, outermost first."""

    shapes: list[tuple[int, ...]]
    single: bool  # whether it is one tensor


def record(module: Any, example: Any) -> dict[str, list[Call]]:
    """Runs a module once and returns what its submodules returned.

    Args:
      module: a torch.nn.Module.
      example: its input, float32[batch, ...].

    Returns:
      dotted name -> its calls, in the order in which the first ones returned.

    Raises:
      UserError: the module fails on the example.
    """
    torch = import_torch()
    calls: dict[str, list[Call]] = {}

    def keep(name):
        def hook(_module, _arguments, output):
            shapes = [tuple(t.shape) for t in _tensors(output)]
            single = _single(output) is not None
            calls.setdefault(name, []).append(Call(shapes, single))

        return hook

    with _in_evaluation(module), contextlib.ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            if name:
                hooks.callback(part.register_forward_hook(keep(name)).remove)
        try:
            module(example)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{type(module).__name__} fails on an example of shape "
                f"{list(example.shape)}: {_one_line(error)}"
            ) from error
    return calls


def check_layers(
    module: Any, calls: dict[str, list[Call]], layers: Sequence[str], batch: int
) -> None:
    """Checks that each layer has one output whose first dimension is the batch.

    Raises:
      UserError: a layer does not exist, is not called once, or returns something else.
    """
    known = [name for name, _ in module.named_modules() if name]
    for layer in layers:
        shown = printable(layer)
        if layer not in known:
            close = difflib.get_close_matches(layer, known, 5, 0.4)
            hint = f"the closest names: {listed(close)}" if close else "see --layers=?"
            raise UserError(f"{type(module).__name__} has no layer {shown!r}; {hint}")
        found = calls.get(layer, [])
        if not found:
            raise UserError(f"layer {shown!r} is not called in a forward pass")
        if len(found) > 1:
            raise UserError(
                f"layer {shown!r} is called {len(found)} times in a forward pass, so "
                "it has no single output; name a layer that is called once"
            )
        (call,) = found
        if not call.single:
            shapes = ", ".join(str(list(shape)) for shape in call.shapes) or "none"
            raise UserError(
                f"layer {shown!r} returns not one tensor but several or none "
                f"(shapes: {shapes}); name a layer inside it or after it"
            )
        if not call.shapes[0] or call.shapes[0][0] != batch:
            raise UserError(
                f"the output of layer {shown!r} has shape {list(call.shapes[0])} for "
                f"{batch} images; its first dimension must be the batch"
            )


def trace(
    module: Any, example: Any, layers: Sequence[str], translated: Collection[str]
) -> tuple[graphs.Graph, dict[str, np.ndarray]]:
    """Exports a module.

    Args:
      module: a torch.nn.Module; it is exported in evaluation mode.
      example: float32[batch, ...], its only input; at least two images.
      layers: dotted names of layers that `check_layers` has accepted.
      translated: names of the operators that need no decomposition.

    Returns:
      the graph, and name -> array of the parameters, buffers and constants in it.

    Raises:
      UserError: the module branches on data, or works for one batch size only.
    """
    torch = import_torch()
    with _in_evaluation(module), torch.no_grad(), _quiet():
        exported, outputs = _export(module, example, layers)
        if not program.is_direct(exported, translated):
            table = {
                key: value
                for key, value in torch.export.default_decompositions().items()
                if program.operator_name(key) not in translated
            }
            exported = exported.run_decompositions(table)
        return program.Writer(exported, outputs).write()


def _export(module, example, layers):
    torch = import_torch()
    found: dict[str, Any] = {}
    outputs: list[str] = []

    class Probed(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, images):
            found.clear()
            output = _own(self.module(images), is_latent(images.shape))
            outputs[:] = [*layers] if output is None else [*layers, graphs.OUTPUT]
            own = () if output is None else (output,)
            return (*(found[name] for name in layers), *own)

    def keep(name):
        def hook(_module, _arguments, output):
            found[name] = _single(output).clone()

        return hook

    probed = Probed().eval()
    batch = torch.export.Dim("batch")
    with contextlib.ExitStack() as hooks:
        for name in layers:
            part = module.get_submodule(name)
            hooks.callback(part.register_forward_hook(keep(name)).remove)
        hooks.enter_context(_traceable())
        try:
            exported = torch.export.export(
                probed, (example,), dynamic_shapes=({0: batch},), strict=False
            )
        except Exception as error:
            raise _explained(module, error) from error
    return exported, outputs


def _explained(module, error) -> UserError:
    """Returns in one line why a module could not be exported."""
    text = f"{type(error).__name__}: {error}"
    where = _place(module, error)
    kind = type(module).__name__
    if re.search(r"[Dd]ata.?[Dd]ependent|\.item\(\)", text):
        return UserError(
            f"{kind} branches on data{where}: its forward pass asks for the value of "
            "a tensor, so no graph holds for all images"
        )
    if "onstraint" in text or "specialized" in text:
        sizes = re.search(r"specialized it to be a constant \((\d+)\)", text)
        only = f": it only works for batches of {sizes[1]}" if sizes else ""
        return UserError(
            f"{kind} fixes the size of a batch{only}; take sizes from the input "
            "(x.shape[0]) so that one graph holds for all batches"
        )
    return UserError(f"{kind} cannot be exported{where}: {_one_line(error)}")


def _place(module, error) -> str:
    """Returns ' in layer NAME (FILE:LINE)' of the module's innermost frame."""
    torch = import_torch()
    names = {id(part): name for name, part in module.named_modules()}
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module) and id(owner) in names:
            code = frame.f_code
            if "/torch/nn/modules/module.py" in code.co_filename.replace("\\", "/"):
                continue
            name = names[id(owner)]
            inside = f" in layer {printable(name)!r}" if name else ""
            file = code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
            place = f"{inside} ({printable(file)}:{line})"
    return place


def _tensors(output: Any) -> Iterator[Any]:
    torch = import_torch()
    for leaf in torch.utils._pytree.tree_leaves(output):
        if isinstance(leaf, torch.Tensor):
            yield leaf


def _single(output: Any) -> Any:
    """Returns the tensor that a layer returns, alone or in a tuple of one; or None."""
    torch = import_torch()
    if isinstance(output, tuple) and len(output) == 1:
        (output,) = output
    return output if isinstance(output, torch.Tensor) else None


def is_latent(shape: Sequence[int]) -> bool:
    """Returns whether a batch of this shape is of a generator's inputs, not of images.

    Latents are [batch, number] or [batch, number, 1, 1].
    """
    return len(shape) == 2 or (len(shape) == 4 and tuple(shape[2:]) == (1, 1))


def _own(output: Any, of_generator: bool) -> Any:
    """Returns a module's own output, or None.

    It is [batch, classes], or for a generator images [batch, channel, height, width].
    """
    tensor = _single(output)
    if tensor is None:
        tensor = getattr(output, "logits", None)
    if _single(tensor) is None or not tensor.is_floating_point():
        return None
    return tensor if tensor.ndim == (4 if of_generator else 2) else None


@contextlib.contextmanager
def _in_evaluation(module):
    """Within it the module is in evaluation mode."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextlib.contextmanager
def _traceable():
    """Within it PyTorch takes no short cuts that depend on sizes or hide operators.

    nn.MultiheadAttention has a fast path in one undocumented operator. torch.einsum
    asks for sizes to find the best order of several products.
    """
    torch = import_torch()
    orders = torch.backends.opt_einsum
    before = torch.backends.mha.get_fastpath_enabled(), orders.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    orders.enabled = False
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        orders.enabled = before[1]


@contextlib.contextmanager
def _quiet():
    """Within it PyTorch's own warnings on exporting are not shown."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _one_line(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return printable(f"{type(error).__name__}: {first.strip()}")
