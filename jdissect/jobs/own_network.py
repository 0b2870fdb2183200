"""Opens a Flax network that a function of the user's makes, for a dissection.

`config.model.python='package.module:function'` names the function. It takes no
arguments, and returns either

- an `nnx.Module`, called as `model(images)` in inference mode. Its layers are the
  outputs of its modules and methods by their path ('blocks.0.conv', 'blocks.0.attend'),
  what it sows as `nnx.Intermediate`, and the feature maps in what it returns; or
- a pair (apply, params), as `jdissect.dissect` takes them: `apply(params, images)`
  returns feature maps in a form that `dissection.feature_maps` understands, such as
  Linen's `module.apply(params, images, capture_intermediates=True)`.

The module, or `apply`, may have an attribute `preprocessing`: a dict with 'mean' and
'std' (per channel, of images in 0..1) and 'size' (side in pixels of the square images
that the network takes; left out: any). Without it, `config.model` decides.
"""

import functools
import hashlib
import importlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from flax import nnx

from jdissect.base.errors import UserError
from jdissect.base.identity import code, digest, source_hash
from jdissect.base.printable import printable
from jdissect.checkpoints.networks import Classifier
from jdissect.dissection import batches_given, feature_maps
from jdissect.models.preprocess import Preprocessing, resized

KEY = "config.model.python"
_LARGEST_SIDE = 4096
# Code of these packages is known by their versions.
_LIBRARIES = ("flax", "jax", "jaxlib", "builtins", "functools")


class _Made(NamedTuple):
    """Parts of what the user's function returned.

    Attributes:
      apply: (params, images) -> feature maps.
      params: a pytree of arrays.
      sources: functions and classes whose code decides what is computed.
      about: object that may have the attribute `preprocessing`.
      note: what was done to it, for the user; '' for nothing.
    """

    apply: Callable[[Any, Any], Any]
    params: Any
    sources: tuple[Any, ...]
    about: Any
    note: str


def load(
    config: ml_collections.ConfigDict, image_shape: tuple[int, int]
) -> tuple[Classifier, str]:
    """Opens the network of `config.model.python`; imports and calls the function.

    `config.model.name` becomes that text, and `config.model.weights` empty.

    Args:
      config: the whole config.
      image_shape: (height, width) of the images.

    Returns:
      the network, without logits; its `endpoint_names` are what it returns of shape
      [batch, height, width, units]. And a line for the user, saying how it is used.

    Raises:
      UserError: the function cannot be imported, fails, or returns something else; its
        network fails on the images; or a layer is not a feature map.
    """
    text = config.model.python
    function = _function(text)
    with _Failing(f"{KEY}: {text} fails"):
        made = _made(function(), text)
    params = batches_given.parameters(made.params)
    preprocessing, size = _preprocessing(made.about, config, text)
    layers = tuple(config.model.layers)
    run = functools.partial(_maps, made.apply, size)
    images = jax.ShapeDtypeStruct(
        (1, *image_shape, len(preprocessing.mean)), np.dtype(config.dtype)
    )
    names: list[str] = []

    def look(params, images):
        returned = run(params, images)
        for name, maps in feature_maps.named(returned, layers):
            if len(getattr(maps, "shape", ())) == 4 or name in layers:
                names.append(name)
        if set(layers) <= set(names):  # what is missing is for the caller to say
            feature_maps.of_layers(returned, layers, len(images))

    with _Failing(f"{KEY}: the network of {text} fails on images {images.shape}"):
        jax.eval_shape(look, params, images)

    def apply(params, images, endpoints):
        returned = run(params, images)
        return None, feature_maps.of_layers(returned, endpoints, len(images))

    config.model.name, config.model.weights = text, ""
    network = Classifier(
        apply=apply,
        params=params,
        preprocessing=preprocessing,
        architecture={
            "name": text,
            "source": _source_hash((function, *made.sources)),
            "code": source_hash(("jobs/own_network",)),
            **({"size": size} if size else {}),
        },
        classes=0,
        endpoint_names=tuple(names),
        input_size=size or image_shape[0],
        weights_sha256=_parameters_hash(params),
    )
    mean, std = (
        ",".join(f"{number:g}" for number in numbers)
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    return network, (
        f"{text}: {made.note}images are normalized by mean {mean} and std {std}"
        f"{f', resized to {size}x{size}' if size else ''}"
    )


def _function(text: str) -> Callable[[], Any]:
    module_name, _, name = text.partition(":")
    parts = [*module_name.split("."), name]
    if not all(part.isidentifier() for part in parts):
        raise UserError(
            f"{KEY} is {printable(text)!r}; it must be package.module:function"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # as `python -m` does
    with _Failing(f"{KEY}: cannot import {module_name}"):
        module = importlib.import_module(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{KEY}: {module_name} has no function {name}")
    return function


def _made(found: Any, text: str) -> _Made:
    if isinstance(found, nnx.Module):
        return _of_module(found, text)
    if isinstance(found, tuple | list) and len(found) == 2 and callable(found[0]):
        apply, params = found
        return _Made(apply, params, (_unwrapped(apply),), apply, "")
    what = "None" if found is None else f"a {type(found).__name__}"
    raise UserError(
        f"{KEY}: {text} returns {what}; it must return an nnx.Module, or "
        "(apply, params)"
    )


def _of_module(model: nnx.Module, text: str) -> _Made:
    if not hasattr(nnx, "capture"):
        raise UserError(
            f"{KEY}: {text} returns an nnx.Module, which needs a newer Flax: "
            "pip install -U flax"
        )
    model.eval()
    graph, params, *random = nnx.split(model, nnx.Not(nnx.RngState), ...)

    def apply(params, images):
        merged = nnx.merge(graph, params, *random)
        run = nnx.capture(merged, nnx.Intermediate, method_outputs=nnx.Intermediate)
        returned, kept = run(images)
        found = {
            # A module's own call does not end its name.
            name.removesuffix(".__call__"): value
            for name, value in feature_maps.flat(nnx.to_pure_dict(kept))
        }
        if (mapping := feature_maps.mapping_in(returned)) is not None:
            found |= dict(feature_maps.flat(mapping))
        return found

    classes = {type(part) for _, part in nnx.iter_graph(model)}
    sources = sorted(classes, key=lambda each: (each.__module__, each.__qualname__))
    note = "an NNX module, in inference mode (model.eval()); "
    return _Made(apply, params, tuple(sources), model, note)


def _maps(apply: Callable, size: int, params: Any, images: Any) -> Any:
    """Applies a network to images of its size."""
    return apply(params, resized(images, (size, size)) if size else images)


def _preprocessing(
    about: Any, config: ml_collections.ConfigDict, text: str
) -> tuple[Preprocessing, int]:
    """Returns the normalization and side of a network's images; 0 for any side."""
    stated = getattr(about, "preprocessing", None)
    where = f"{KEY}: preprocessing of {text}"
    if stated is None:
        where = "config.model"
        stated = {key: config.model[key] for key in ("mean", "std", "size")}
    try:
        stated = dict(stated)
        form = Preprocessing.from_json({**stated, "scale": 1 / 255})
        size = int(stated.get("size") or 0)
        if not 0 <= size <= _LARGEST_SIDE:
            raise UserError(f"size is {size}, not 1 .. {_LARGEST_SIDE}")
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error
    return form, size


def _parameters_hash(params: Any) -> str:
    """Returns the sha256 of a pytree of arrays: of paths, types, shapes and bytes."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        total.update(f"{name} {array.dtype} {array.shape}\0".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _source_hash(objects: tuple[Any, ...]) -> str:
    """Returns a hash of the syntax trees of the files that define these objects."""
    found = {}
    for each in objects:
        each = _unwrapped(each)
        module = getattr(each, "__module__", None) or ""
        if module.split(".")[0] in _LIBRARIES:
            continue
        try:
            path = inspect.getsourcefile(each)
            assert path is not None
            found[module] = code(Path(path).read_text(encoding="utf-8"))
        except (TypeError, OSError, AssertionError, SyntaxError):
            found[module] = ""  # compiled: the parameters and the name remain
    return digest(found)


def _unwrapped(function: Any) -> Any:
    """Returns the function or class that a partial, bound or callable object runs."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    if isinstance(function, type | types.FunctionType):
        return function
    return type(function)


class _Failing:
    """Turns any error of the user's code into one line that says where it stands."""

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, UserError) or not isinstance(
            error, Exception | SystemExit
        ):
            return
        ours = Path(__file__).parents[1]
        places = [
            f" ({Path(frame.filename).name}:{frame.lineno})"
            for frame in traceback.extract_tb(trace)
            if Path(frame.filename).is_file()
            and not Path(frame.filename).is_relative_to(ours)
            and not {"jax", "flax"} & set(Path(frame.filename).parts)
        ]
        lines = str(error).strip().splitlines() or [""]
        text = printable(f"{type(error).__name__}: {lines[0]}", 300)
        raise UserError(
            f"{self._what}: {text}{places[-1] if places else ''}"
        ) from error
