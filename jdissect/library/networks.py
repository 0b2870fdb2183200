"""Takes the network that a caller names: a function, a folder, or a Flax module."""

import difflib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flax import nnx

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import networks, shipped
from jdissect.dissection.photographs import Geometry
from jdissect.jobs.batches import network_of
from jdissect.models.endpoints import listed


class Given(NamedTuple):
    """A network to dissect.

    Attributes:
      apply: (params, images) -> feature maps.
      params: a pytree of arrays.
      name: what its results call it; '' for a caller's function.
      geometry: of a network that takes 8-bit pixels; None for others.
    """

    apply: Callable
    params: Any
    name: str = ""
    geometry: Geometry | None = None


def load_model(folder: str | os.PathLike) -> networks.Classifier:
    """Loads a network that a converter or a training wrote.

    Args:
      folder: a checkpoint folder, or the name of a network that comes with the package,
        such as 'shipped:mixup'.

    Returns:
      the network, for `jdissect.dissect(model, images, ...)`; `endpoint_names` lists
      its layers.

    Raises:
      UserError: the folder is missing, damaged, or not a classifier's.
    """
    return networks.load_classifier(os.fspath(folder))


def has_parameters(network: Any) -> bool:
    """Returns whether a network comes with its parameters."""
    kinds = str | os.PathLike | networks.Classifier | nnx.Module
    return isinstance(network, kinds)


def given(network: Any, params: Any, layers: str | Sequence[str]) -> Given:
    """Returns the network that a caller gave.

    Raises:
      UserError: it is none, or lacks a layer.
    """
    if isinstance(network, str | os.PathLike):
        _check_folder(os.fspath(network))
        network = load_model(network)
    if isinstance(network, networks.Classifier):
        if network.latent:
            raise UserError(
                f"{network.name} is a generator, which takes no images; the command "
                "line dissects it: --config.data.source=generator"
            )
        named = (layers,) if isinstance(layers, str) else tuple(layers)
        _check_layers(network, named)
        return Given(
            network_of(network, named, "float32"),
            network.params,
            network.name,
            Geometry(network.input_size),
        )
    if isinstance(network, nnx.Module):
        graph, state = nnx.split(network)
        return Given(lambda params, images: nnx.merge(graph, params)(images), state)
    if any(kind.__module__.startswith("torch.nn") for kind in type(network).__mro__):
        raise UserError(
            "the network is a PyTorch module; convert it with jdissect.convert_torch("
            "module, example, layers, FOLDER), and give the folder"
        )
    return Given(network, params)


def _check_folder(folder: str) -> None:
    if folder.startswith(shipped.PREFIX) or paths.is_remote(folder):
        return
    if not paths.to_path(folder).is_dir():
        raise UserError(
            f"{printable(folder)} is not a folder; give that of a converted network, "
            "or the name of one that comes with jdissect, such as shipped:mixup"
        )


def _check_layers(model: networks.Classifier, layers: Sequence[str]) -> None:
    there = model.endpoint_names
    for layer in layers:
        if isinstance(layer, str) and layer not in there:
            close = difflib.get_close_matches(layer, there, 3, 0.5)
            hint = f"is it {' or '.join(close)}? " if close else ""
            raise UserError(
                f"the network has no layer '{printable(layer)}'; {hint}it has "
                f"{listed(there)}"
            )
