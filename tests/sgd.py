"""One step of SGD beside the same step of PyTorch in float64, from the same numbers.

Rounding differs from processor to processor, and steps amplify it. So every step
starts from the float64 network's numbers, which are float32 numbers. Of that step the
gradients, the momenta and the changes of parameters and statistics are compared, not
the parameters, most of which are what they were before.

float32 leaves a relative error of about 1e-5 in a gradient. Where a ReLU's argument or
the largest of a pooling window is decided by rounding the error is a hundred times as
large: such batches are avoided, see `decisive`.
"""

import copy
from unittest import mock

import jax
import numpy as np
import optax
import torch
from jdissect.converters.convert import Source, convert
from torch.nn import functional

from jdissect import models
from jdissect.converters import resnet_names
from jdissect.training import step

ARCHITECTURE = {"name": "resnet18", "width": 8, "classes": 7}
MARGIN = 1e-5  # float32 leaves an error of about 1e-6 in the arguments of a ReLU
ERROR = 1e-3  # relative: a hundredfold of rounding, a tenth of a gradient times 1.01


def as_parameters(tensors):
    """PyTorch's tensors of a ResNet-18 as our parameters, float32."""
    arrays = {k: v.detach().numpy() for k, v in tensors.items()}
    shapes = models.shapes(models.build_abstract(**ARCHITECTURE))
    return convert([Source("the twin", arrays, resnet_names.mapping(18))], shapes)[0]


def values(network):
    """Parameters and statistics of PyTorch's network by our names."""
    return as_parameters(network.state_dict())


def momenta(network, optimizer):
    """The momentum of each parameter by our name; statistics have zeros."""
    found = {name: torch.zeros_like(b) for name, b in network.named_buffers()}
    for name, parameter in network.named_parameters():
        moved = optimizer.state[parameter].get("momentum_buffer")
        found[name] = torch.zeros_like(parameter) if moved is None else moved
    return as_parameters(found)


def round_to_float32(network, optimizer):
    """Leaves float32 numbers in a float64 network and its momenta."""
    tensors = [*network.parameters(), *network.buffers()]
    tensors += [s["momentum_buffer"] for s in optimizer.state.values() if s]
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(tensor.float().double())


def continued(state, start, momentum):
    """One device's `state` with these values and momenta; its step number stays."""
    params, statistics = (
        models.with_parameters(state[part], start) for part in ("params", "statistics")
    )
    trace = models.with_parameters(state["params"], momentum)
    moved = optax.tree_utils.tree_set(state["optimizer"], trace=trace)
    return {"params": params, "statistics": statistics, "optimizer": moved}


def read(state):
    """(values, momenta) of one device's `state` by name."""
    trace = optax.tree_utils.tree_get(state["optimizer"], "trace")
    nothing = jax.tree.map(np.zeros_like, state["statistics"])
    return step.parameters(state), step.parameters(
        {"params": trace, "statistics": nothing}
    )


def decisive(network, *groups):
    """Whether rounding decides no ReLU and no maximum in a network's forward passes.

    Args:
      network: of PyTorch, in float64; it is left as it was.
      groups: images that are normalized together.
    """
    network, nearest = copy.deepcopy(network), []
    relu, pool = functional.relu, functional.max_pool2d

    def seen_relu(maps):
        nearest.append(maps.abs().min())
        return relu(maps)

    def seen_pool(maps, size, stride, padding):
        windows = functional.unfold(maps, size, padding=padding, stride=stride)
        windows = windows.unflatten(1, (maps.shape[1], size * size))
        first, second = windows.topk(2, dim=2).values.unbind(2)
        nearest.append((first - second)[first > 0].min())  # zeros have no gradient
        return pool(maps, size, stride, padding)

    with (
        torch.no_grad(),
        mock.patch.object(functional, "relu", seen_relu),
        mock.patch.object(functional, "max_pool2d", seen_pool),
    ):
        for images in groups:
            network(images)
    assert len(nearest) == 18 * len(groups)
    return min(nearest).item() > MARGIN


def compare(found, expected, before, momentum):
    """Asserts that a step did the same.

    Args:
      found: (values, momenta) after the step here.
      expected: the same of PyTorch.
      before: the same before the step, of both.
      momentum: the share of a momentum that a step keeps.
    """
    for name, start in before[0].items():
        pairs = {
            "change": [after[0][name] - start for after in (found, expected)],
            "gradient": [
                after[1][name] - momentum * before[1][name]
                for after in (found, expected)
            ],
        }
        if name.endswith((".mean", ".var")):
            del pairs["gradient"]
        for what, (ours, theirs) in pairs.items():
            size = np.linalg.norm(theirs)
            error = np.linalg.norm(ours - theirs) / size
            assert size > 0 and error < ERROR, f"{what} of {name}: error {error:.1e}"
