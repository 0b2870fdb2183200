"""Turns a PyTorch module into a checkpoint folder that JAX dissects.

    jdissect.convert_torch(module, example, ["layer3", "layer4"], "weights/mine")

`torch_graph` translates the module to JAX; `checkpoints.graphs` keeps the function.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jdissect.converters.layouts import Layout
from jdissect.converters.torch_files import import_torch

from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.checkpoints import graphs, networks
from jdissect.converters import layouts, torch_sources
from jdissect.models.preprocess import Preprocessing
from jdissect.runtime.devices import in_32_bits

TOLERANCE = 1e-3  # of `verify`, relative to a layer's largest value


@in_32_bits
def convert_torch(
    module: Any,
    example: Any,
    layers: str | Sequence[str],
    output: str | os.PathLike,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | Mapping[str, str] = "auto",
    prefix_tokens: int | None = None,
    pooled: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    name: str = "",
    source: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = print,
) -> str:
    """Writes a PyTorch module as a folder that every command takes as `model.weights`.

    The folder has the weights, and the computation as StableHLO for any number of
    images of the example's size, on CPUs, GPUs and TPUs. PyTorch is not needed to use
    it. The module itself is not changed.

    Args:
      module: a torch.nn.Module that takes images [batch, channel, height, width], or a
        generator that makes images of latents [batch, number] or [batch, number, 1, 1].
        It is converted as in evaluation mode.
      example: tensor of what it takes; only its size counts.
      layers: dotted names of submodules, as in `module.named_modules()`.
      output: the folder to write.
      mean, std: mean and deviation of the image channels, in 0..1, for normalization;
        default: those of `module.pretrained_cfg`, as timm's modules have. A generator's
        images are of normalized pixels: 0.5 and 0.5 where they are in -1..1, 0 and 1
        where they are in 0..1.
      layout: layout of the outputs, 'nchw', 'nhwc', 'tokens', 'pooled' or 'auto'; or
        {layer: layout}.
      prefix_tokens: number of class and register tokens; None: found from the grid.
      pooled: whether an output without place is accepted as a map of 1x1.
      verify: whether to compare with PyTorch on random images before writing.
      overwrite: whether to replace a checkpoint.
      name: what the network is called; default: its class.
      source: what to record of where the weights come from.
      tell: prints what was found, a line at a time.

    Returns:
      the hash of the weights.

    Raises:
      UserError: torch is missing; a layer does not exist or is no feature map; the
        module cannot be translated; the normalization is unknown; or the folder exists.
    """
    torch = import_torch()
    networks.check_output(output, overwrite)
    layers = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    _check_names(layers)
    shape = tuple(example.shape)
    if len(shape) not in (2, 4):
        raise UserError(
            f"the example has shape {list(shape)}, not [batch, channel, height, width] "
            "or a generator's [batch, number]"
        )
    name = name or type(module).__name__
    if not graphs.is_plain_name(name):
        raise UserError(f"the network cannot be called {printable(name)!r}")
    opened = torch_sources.described(module, name)
    asked = layouts.each(layout, layers)
    # Imported late: it takes a second, and needs torch.
    from jdissect.converters import torch_graph

    generates = torch_graph.is_latent(shape)
    if not generates:  # an error here costs no translation
        preprocessing = _preprocessing(mean, std, shape[1], opened.preprocessing)
    example = torch.as_tensor(example).detach().float().cpu()
    translated = torch_graph.translate(module, example, layers)
    own = _own_shape(translated, shape)
    image_shape = (*shape[2:], shape[1])
    if generates:
        image_shape = _made(own, name)
        preprocessing = _preprocessing(mean, std, image_shape[2], None, generates)
    found = {
        layer: layouts.infer(
            layer,
            translated.shapes[layer][1:],
            image_shape[:2],
            asked[layer],
            prefix_tokens,
            pooled,
            opened.prefix_tokens,
        )
        for layer in _in_order(module, layers)
    }
    for layer, each in found.items():
        tell(f"{layer}: {each}")
    if generates:
        tell(f"images: {' x '.join(map(str, image_shape))}, of latents of {shape[1]}")
    parameters = _checked(translated.params)
    signature = graphs.Signature(
        image_shape,
        tuple(
            graphs.Endpoint(layer, each.shape, each.kind, each.prefix)
            for layer, each in found.items()
        ),
        classes=0 if generates or not own else own[0],
        latent=shape[1] if generates else 0,
    )
    function = _function(translated.apply, found, shape[1:])
    texts = {
        dtype: graphs.write(function(dtype), parameters, signature, dtype)
        for dtype in graphs.DTYPES
    }
    if verify:
        text = texts["float32"]
        compare(module, shape[1:], text, parameters, signature, found, tell)
    architecture, graph = graphs.describe(opened.name, texts, signature)
    description = networks.describe_classifier(
        architecture, preprocessing, input_size=max(image_shape[:2]), source=source
    )
    return networks.save(
        output,
        parameters,
        {**description, "graph": graph},
        overwrite=overwrite,
        tensors=True,
        files=graphs.files(texts),
    )


def compare(
    module: Any,
    shape: tuple[int, ...],
    text: bytes,
    parameters: Mapping[str, np.ndarray],
    signature: graphs.Signature,
    found: Mapping[str, Layout],
    tell: Callable[[str], None],
) -> None:
    """Runs PyTorch and the graph on the same random inputs, and prints differences.

    Raises:
      UserError: a difference is above TOLERANCE of the layer's largest value.
    """
    images = np.random.default_rng(0).normal(size=(2, *signature.input_shape))
    images = images.astype(np.float32)
    given = images.reshape(2, *shape) if signature.latent else _channels_first(images)
    expected = _run_torch(module, given, list(found))
    graph = graphs.Graph(
        text.decode(), parameters, signature, "float32", graphs.PLATFORMS
    )
    maps, own = jax.jit(graph)(dict(parameters), images)
    if signature.latent:
        own = _channels_first(own)
    actual = maps if own is None else {**maps, "": own}
    width = max(10, *map(len, found))
    tell(f"{'':{width}}{'largest':>12}{'difference':>14}{'relative':>12}")
    worst = {}
    for layer, ours in actual.items():
        theirs = expected[layer]
        if layer:
            theirs = np.asarray(layouts.place(theirs, found[layer]))
        largest = float(np.abs(theirs).max())
        difference = float(np.abs(np.asarray(ours) - theirs).max())
        relative = difference / largest if largest else difference
        shown = layer or ("image" if signature.latent else "logits")
        tell(f"{shown:{width}}{largest:12.4g}{difference:14.3g}{relative:12.3g}")
        if not relative <= TOLERANCE:
            worst[shown] = relative
    if worst:
        where = ", ".join(f"{name} {value:.3g}" for name, value in worst.items())
        raise UserError(
            f"the converted network differs from PyTorch's by more than {TOLERANCE:g}: "
            f"{where}.\nNothing was written. Please report this with the module's name."
        )


def _run_torch(
    module: Any, images: np.ndarray, layers: Sequence[str]
) -> dict[str, np.ndarray]:
    torch = import_torch()
    kept: dict[str, np.ndarray] = {}

    def keep(layer):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            kept[layer] = output.detach().clone().float().numpy()

        return hook

    hooks = [
        module.get_submodule(layer).register_forward_hook(keep(layer))
        for layer in layers
    ]
    training = module.training
    try:
        module.eval()
        with torch.inference_mode():
            output = module(torch.from_numpy(images.copy()))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    output = getattr(output, "logits", output)
    if isinstance(output, torch.Tensor):
        kept[""] = output.clone().float().numpy()
    return kept


def _check_names(layers: Sequence[str]) -> None:
    if not layers:
        raise UserError("give at least one layer (--layers=?, for a list)")
    odd = [layer for layer in layers if not graphs.is_plain_name(layer)]
    if odd:
        raise UserError(
            f"layer {printable(odd[0])!r} cannot name a folder of a run; rename it, or "
            "choose another"
        )


def _channels_first(images: Any) -> Any:
    return images.transpose(0, 3, 1, 2)


def _own_shape(translated: Any, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Returns the shape of the module's own output for one input, or None."""
    moved = (*shape[2:], shape[1]) if len(shape) == 4 else shape[1:]
    given = jax.ShapeDtypeStruct((1, *moved), np.float32)
    own = jax.eval_shape(translated.apply, translated.params, given).get("")
    return None if own is None else own.shape[1:]


def _made(own: tuple[int, ...] | None, name: str) -> tuple[int, int, int]:
    """Returns (height, width, channel) of a generator's images."""
    if own is None or own[0] not in (1, 3):
        what = "no image" if own is None else f"{own[0]} channels"
        raise UserError(
            f"the example is of latents, but {name} returns {what}; a generator "
            "returns one array [batch, 3 or 1, height, width]"
        )
    return own[1], own[2], own[0]


def _preprocessing(
    mean: Any,
    std: Any,
    channels: int,
    known: Preprocessing | None,
    generates: bool = False,
) -> Preprocessing:
    """Returns the normalization of the images: as given, or as known."""
    found = _given(mean, std, channels) or known
    if found is None and generates:
        raise UserError(
            "the range of the generator's images is not known; give mean and std of "
            "the channels (--mean=, --std=): 0.5 each for -1 to 1, 0 and 1 for 0 to 1"
        )
    if found is None:
        raise UserError(
            "how pixels are normalized is not known; give mean and std of the channels "
            "(--mean=, --std=), 0 to 1, such as 0.485,0.456,0.406 and "
            "0.229,0.224,0.225 for ImageNet's"
        )
    if len(found.mean) != channels:
        raise UserError(
            f"the images have {channels} channels, but the normalization is of "
            f"{len(found.mean)}"
        )
    return found


def _given(mean: Any, std: Any, channels: int) -> Preprocessing | None:
    if mean is None and std is None:
        return None
    try:
        found = Preprocessing(tuple(map(float, mean)), tuple(map(float, std)), 1 / 255)
        right = len(found.mean) == len(found.std) == channels and 0 not in found.std
    except (TypeError, ValueError):
        right = False
    if not right:
        raise UserError(f"mean and std must be {channels} numbers each, std not 0")
    return found


def _in_order(module: Any, layers: Sequence[str]) -> list[str]:
    """Returns the layers in the module's own order, which is that of depth."""
    return [name for name, _ in module.named_modules() if name in set(layers)]


def _checked(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    parameters = {}
    for name, each in params.items():
        array = np.asarray(each)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        elif array.dtype.kind in "iu":
            array = array.astype(np.int32)
        parameters[name] = np.ascontiguousarray(array)
    bad = [k for k, array in parameters.items() if np.isnan(array).any()]
    if bad:
        raise UserError(f"the module has undefined values (NaN) in {listed(bad)}")
    return parameters


def _function(
    apply: Callable, found: Mapping[str, Layout], shape: tuple[int, ...]
) -> Callable[[str], Any]:
    """Returns dtype -> function that `graphs.write` takes.

    Args:
      apply: the translated module.
      found: layouts of its layers.
      shape: shape of its input in PyTorch, without the batch.
    """

    def of(dtype: str):
        def cast(array):
            real = jnp.issubdtype(array.dtype, jnp.floating)
            return array.astype(dtype) if real else array

        def function(params, images):
            if len(shape) == 3 and images.ndim == 2:  # latents as maps of 1x1
                images = images[:, None, None]
            outputs = apply(jax.tree.map(cast, params), images)
            maps = {
                layer: layouts.place(outputs[layer], each).astype(dtype)
                for layer, each in found.items()
            }
            own = outputs.get("")
            if own is None:
                return maps, None
            own = own.transpose(0, 2, 3, 1) if own.ndim == 4 else own
            return maps, own.astype(dtype)

        return function

    return of
