"""Networks ready to run, from checkpoint folders (see `checkpoints.weights`)."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from flax import nnx

from jdissect import models
from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.checkpoints import graphs, shipped
from jdissect.checkpoints.weights import (
    check_output,
    damaged,
    load,
    read_description,
    resolved,
    save,
    weights_sha256,
)
from jdissect.models import segmenter_labels
from jdissect.models.preprocess import Preprocessing
from jdissect.models.upernet import SIDE, STRIDE
from jdissect.runtime.devices import in_32_bits

__all__ = [
    "Classifier",
    "Segmenter",
    "check_output",
    "describe_classifier",
    "describe_segmenter",
    "load",
    "load_classifier",
    "load_configured",
    "load_segmenter",
    "read_description",
    "save",
    "weights_sha256",
]

# The segmenters' architectures; all others are classifiers'.
SEGMENTERS = ("upernet", "ppm", "upernet_objects", "ppm_objects")
_LARGEST_SIDE = 4096  # of a segmenter's images
_LARGEST_OPTION = 10**7  # of an architecture: classes, units
_OURS = ("folded", "dtype", "rngs")  # options of `models.build` that no file chooses


@dataclasses.dataclass(frozen=True, repr=False)
class Classifier:
    """A network ready to run.

    Attributes:
      apply: `apply(params, images, endpoints=None)` on *normalized* images returns
        `(logits, {endpoint: feature map})`; see `models.as_function`.
      params: its parameters, a pytree of device arrays.
      preprocessing: the normalization its images need.
      architecture: name and options, as in `model.json`.
      classes: number of logits; 0: it has no classifier, and its logits are None.
      endpoint_names: in order of depth.
      input_size: side of the square images it was trained on.
      weights_sha256: identifies the weights.
      takes_masks: whether `apply` takes factors of units, which ablation needs.
      image_shape: (height, width) to which `apply` resizes images, or of a generator's
        own images; None: it takes any.
      latent: numbers of a generator's input, which `apply` takes in place of images: it
        returns its images in place of logits, normalized. 0: it takes images.
    """

    apply: Callable
    params: Any
    preprocessing: Preprocessing
    architecture: dict[str, Any]
    classes: int
    endpoint_names: tuple[str, ...]
    input_size: int
    weights_sha256: str
    takes_masks: bool = True
    image_shape: tuple[int, int] | None = None
    latent: int = 0

    @property
    def name(self) -> str:
        """What it is called: its architecture, or the module that became a graph."""
        return _name(self.architecture)

    def __repr__(self) -> str:
        layers = listed(self.endpoint_names, 20)
        return f"<Classifier: {self.name}, {self.classes:,} classes, layers {layers}>"


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A segmenter's network. Its weights are read when they are first asked for.

    Attributes:
      folder: the checkpoint.
      architecture: name and options, as in `model.json`.
      labels: what its channels mean: `UPerNetLabels`, `ColorLabels` or `ObjectLabels`
        of `segmenter_labels`.
      weights_sha256: identifies the weights, but not the labels.
      dtype, fold: as `load_segmenter` was given them.
      side: side of the square images that a UPerNet sees, in pixels.
    """

    folder: paths.Path
    architecture: dict[str, Any]
    labels: Any
    weights_sha256: str
    dtype: str
    fold: bool
    side: int = SIDE

    def apply(self, params: nnx.State, images: Any, **options) -> dict[str, Any]:
        """What the network says of *prepared* images: {name: scores}.

        See `models.upernet` and `models.ppm`. Pure; `options` are static.
        """
        return self._network.apply(params, images, **options)

    @property
    def params(self) -> nnx.State:
        """Its parameters, a pytree of device arrays.

        Raises:
          UserError: the weights are not those of this network, or damaged.
        """
        return self._network.params

    @functools.cached_property
    def _network(self) -> "_Network":
        name = self.architecture["name"]
        return _load_network(self.folder, "segmenter", name, self.dtype, self.fold)


def describe_classifier(
    architecture: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    input_size: int = 224,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a classifier that `save` takes.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}, or
        that of `graphs.describe`.
      preprocessing: of its images.
      input_size: side of the square images it was trained on.
      source: where the weights come from, e.g. {'file': name, 'sha256': hash}.
    """
    return {
        "kind": "classifier",
        "architecture": dict(architecture),
        "preprocessing": preprocessing.to_json(),
        "input_size": input_size,
        "source": dict(source or {}),
    }


def describe_segmenter(
    architecture: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    side: int = SIDE,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a segmenter that `save` takes.

    Args:
      architecture: {'name': one of SEGMENTERS, **options of `build`}.
      labels: the content of a `labels.json` (see `segmenter_labels`).
      side: side of square images that a UPerNet sees; left out if the default.
      source: where the weights come from, e.g. {'files': {name: hash}}.
    """
    return {
        "kind": "segmenter",
        "architecture": dict(architecture),
        "labels": dict(labels),
        **({} if side == SIDE else {"side": side}),
        "source": dict(source or {}),
    }


@in_32_bits
def load_classifier(
    folder: str | os.PathLike,
    name: str | None = None,
    *,
    dtype: str = "float32",
    fold: bool = True,
) -> Classifier:
    """Loads a classifier, with batch normalization folded into its convolutions.

    Args:
      folder: a checkpoint folder.
      name: the architecture expected, e.g. 'resnet50'; None takes any.
      dtype: type of the computation, 'float32' or 'bfloat16'; parameters are float32.
      fold: whether to fold; without, the network computes the same up to rounding.

    Raises:
      UserError: as `load`; the architecture is another or unknown; or a parameter
        is missing, unknown or misshapen, by name.
    """
    architecture = _architecture(folder, read_description(folder, "classifier"), name)
    if architecture["name"] == graphs.NAME:
        return _load_graph(folder, architecture, dtype)
    network = _load_network(folder, "classifier", name, dtype, fold)
    try:
        preprocessing = Preprocessing.from_json(network.description["preprocessing"])
        input_size = int(network.description["input_size"])
        if len(preprocessing.mean) != network.architecture.get("in_channels", 3):
            raise UserError("preprocessing is not of in_channels channels")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(folder, error) from error
    return Classifier(
        apply=network.apply,
        params=network.params,
        preprocessing=preprocessing,
        architecture=network.architecture,
        classes=network.shapes.get("fc.bias", (0,))[0],
        endpoint_names=network.endpoint_names,
        input_size=input_size,
        weights_sha256=network.description["weights_sha256"],
    )


def _load_graph(
    folder: str | os.PathLike, architecture: dict[str, Any], dtype: str
) -> Classifier:
    parameters, description = load(folder, "classifier")
    try:
        graph, signature = graphs.read(
            resolved(folder), architecture, description["graph"], parameters, dtype
        )
        preprocessing = Preprocessing.from_json(description["preprocessing"])
        input_size = int(description["input_size"])
        if len(preprocessing.mean) != signature.image_shape[-1]:
            raise ValueError("preprocessing is not of the images' channels")
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(folder, error) from error
    return Classifier(
        apply=graphs.as_classifier(graph, signature, os.fspath(folder)),
        params=jax.device_put(parameters),
        preprocessing=preprocessing,
        architecture=architecture,
        classes=signature.classes,
        endpoint_names=tuple(endpoint.name for endpoint in signature.endpoints),
        input_size=input_size,
        weights_sha256=description["weights_sha256"],
        takes_masks=False,
        image_shape=signature.image_shape[:2],
        latent=signature.latent,
    )


def load_configured(config: ml_collections.ConfigDict) -> Classifier:
    """The network of `config.model`, of whatever architecture its weights are of.

    An empty `config.model.name` is filled in.

    Raises:
      UserError: as `load_classifier`; or there are no weights.
    """
    if config.model.get("python"):
        raise UserError(
            "config.model.python is a network to dissect (jdissect.main); this command "
            "takes config.model.weights"
        )
    name = config.model.name
    if name and name not in models.ARCHITECTURES and not _is_called(config, name):
        known = ", ".join(n for n in models.ARCHITECTURES if n not in SEGMENTERS)
        raise UserError(
            f"config.model.name is {name!r}; it must be one of {known}, or '' for what "
            "the weights are of"
        )
    if not config.model.weights:
        raise UserError(
            "config.model.weights is not set; give the folder of a converted network "
            "(python -m converters.resnet --help, or converters.torch_module for any "
            "other) or of a trained one"
        )
    model = load_classifier(config.model.weights, name or None, dtype=config.dtype)
    config.model.name = model.name
    return model


def _is_called(config: ml_collections.ConfigDict, name: str) -> bool:
    """Returns whether the config's weights are those of a graph of this name."""
    if not config.model.weights:
        return False
    folder = config.model.weights
    description = read_description(folder, "classifier")
    architecture = _architecture(folder, description, None)
    return architecture["name"] == graphs.NAME and _name(architecture) == name


def _name(architecture: Mapping[str, Any]) -> str:
    is_graph = architecture["name"] == graphs.NAME
    return architecture["network" if is_graph else "name"]


@in_32_bits
def load_segmenter(
    folder: str | os.PathLike,
    name: str | Sequence[str] | None = None,
    *,
    dtype: str = "float32",
    fold: bool = True,
) -> Segmenter:
    """A segmenter, its labels checked; with batch normalization folded.

    Args:
      folder: a checkpoint folder.
      name: the architecture expected, e.g. 'upernet', or several; None takes any.
      dtype, fold: as for `load_classifier`.

    Raises:
      UserError: as `load_classifier`, but for what concerns the parameters, which is
        raised when they are asked for; or the labels are not of their form, or do not
        fit the network; or the side is none.
    """
    description = read_description(folder, "segmenter")
    readers: dict[
        str,
        Callable[
            [Any],
            segmenter_labels.UPerNetLabels
            | segmenter_labels.ColorLabels
            | segmenter_labels.ObjectLabels,
        ],
    ] = {
        "upernet": segmenter_labels.read_upernet,
        "ppm": segmenter_labels.read_color,
        "upernet_objects": segmenter_labels.read_objects,
        "ppm_objects": segmenter_labels.read_objects,
    }
    architecture = _architecture(folder, description, name)
    try:
        labels = readers[architecture["name"]](description["labels"])
        segmenter_labels.check_channels(labels, architecture, "labels")
        side = description.get("side", SIDE)
        if type(side) is not int or not STRIDE <= side <= _LARGEST_SIDE:
            raise UserError(
                f"side is {ascii(side)[:40]}, not {STRIDE} .. {_LARGEST_SIDE}"
            )
    except (KeyError, UserError) as error:
        raise damaged(folder, error) from error
    return Segmenter(
        folder=paths.to_path(folder),
        architecture=architecture,
        labels=labels,
        weights_sha256=description["weights_sha256"],
        dtype=dtype,
        fold=fold,
        side=side,
    )


@dataclasses.dataclass(frozen=True)
class _Network:
    """What a checkpoint folder holds, checked, and as a function."""

    description: dict[str, Any]
    architecture: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # of the parameters as they are stored
    endpoint_names: tuple[str, ...]
    apply: Callable
    params: nnx.State


def _load_network(
    folder: str | os.PathLike, kind: str, name: str | None, dtype: str, fold: bool
) -> _Network:
    description = read_description(folder, kind)
    architecture = _architecture(folder, description, name)
    try:
        model = models.build_abstract(**architecture)
    except Exception as error:  # options may be anything, and what they break, too
        raise damaged(folder, error) from error
    shapes = models.shapes(model)
    where = f"checkpoint {folder}"
    parameters, _ = load(
        folder, kind, lambda stored: models.check_shapes(stored, shapes, where)
    )
    apply, params = models.for_inference(
        architecture, parameters, dtype=dtype, fold=fold
    )
    endpoint_names = tuple(getattr(model, "endpoint_names", ()))
    return _Network(description, architecture, shapes, endpoint_names, apply, params)


def _architecture(
    folder: str | os.PathLike,
    description: Mapping[str, Any],
    name: str | Sequence[str] | None,
) -> dict[str, Any]:
    """Raises UserError if it is not of the description's kind, or not `name`."""
    try:
        architecture = dict(description["architecture"])
        found, kind = architecture["name"], description["kind"]
        if (found in SEGMENTERS) != (kind == "segmenter"):
            raise UserError(f"a {printable(found)} is no {kind}")
        for key, value in architecture.items():
            if key in _OURS:
                raise UserError(f"{key} is not an architecture's")
            if isinstance(value, int) and not 0 <= value <= _LARGEST_OPTION:
                raise UserError(f"{printable(key)} is {value}")
        if not graphs.is_plain_name(called := _name(architecture)):
            raise UserError(f"it is called {printable(str(called), 60)}")
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise damaged(folder, error) from error
    if isinstance(name, str):
        name = (name,)
    if name is not None and called not in name:
        raise UserError(
            f"checkpoint {folder} holds a {called}, not a {name[0]}; give "
            f"--config.model.name={called}"
        )
    return architecture


def model_identity(model: Classifier) -> dict[str, Any]:
    """What makes a network itself: a run's `identity.model` is its digest."""
    return {
        "architecture": model.architecture,
        "preprocessing": model.preprocessing.to_json(),
        "weights": model.weights_sha256,
    }


def top1_error(weights: str) -> float | None:
    """In percent, of a network that was trained here, as measured then; else None.

    Args:
      weights: folder of the network; '' for one of the user's own.
    """
    if not weights:
        return None
    if weights.startswith(shipped.PREFIX):
        return shipped.entry(weights)["scores"]["top1_error"]
    return read_description(weights)["source"].get("top1_error")
