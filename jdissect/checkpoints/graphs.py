"""Keeps networks as StableHLO: writes a function as a graph, and makes it one again.

A checkpoint folder with a graph has, beside its weights and `model.json`,

    FOLDER/graph.float32.mlir      StableHLO as text, for config.dtype=float32
    FOLDER/graph.bfloat16.mlir     the same for bfloat16

A graph takes the weights and normalized images [batch, height, width, channel], for any
batch, and returns one feature map [batch, height, width, unit] per endpoint and, if the
network classifies, logits. A generator's takes latents [batch, number], and returns the
images that it makes in place of logits. It is the same for the platforms CPU, CUDA and
TPU.
`graph_check` says why the graph is text, and what it may contain.
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import mlir
from jax.extend.mlir import ir
from jaxtyping import Array, Float

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import graph_check
from jdissect.models.endpoints import check_endpoints
from jdissect.models.preprocess import resized

NAME = "stablehlo"  # the architecture of a network that is kept as a graph
PLATFORMS = ("cpu", "cuda", "tpu")
DTYPES = ("float32", "bfloat16")
FILES = tuple(f"graph.{dtype}.mlir" for dtype in DTYPES)

_LARGEST_SIDE = 16384  # of images and maps, in pixels
_LARGEST_COUNT = 10**7  # of units and classes
LARGEST_LATENT = 10**5  # numbers of a generator's input
_MOST_ENDPOINTS = 10_000
_LONGEST_NAME = 200
_OF_NUMPY = {"float32": "f32", "bfloat16": "bf16", "int32": "i32", "bool": "i1"}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A feature map that a graph returns.

    Attributes:
      name: the layer's dotted name in the original module.
      shape: (height, width, unit).
      layout: how the module gives it: 'nchw', 'nhwc', 'tokens' or 'pooled'.
      prefix_tokens: class and register tokens that were left out, of 'tokens'.
    """

    name: str
    shape: tuple[int, int, int]
    layout: str
    prefix_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of `model.json`."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a graph takes and returns, besides the weights.

    Attributes:
      image_shape: (height, width, channel) of the images that it takes; of a generator,
        of those that it returns.
      endpoints: the feature maps, in order of depth.
      classes: number of logits; 0: none.
      latent: numbers of a generator's input; 0: it takes images.
    """

    image_shape: tuple[int, int, int]
    endpoints: tuple[Endpoint, ...]
    classes: int
    latent: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: an image, or a latent."""
        return (self.latent,) if self.latent else self.image_shape

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Shape of the last output: logits, or a generator's image; None without."""
        if self.latent:
            return self.image_shape
        return (self.classes,) if self.classes else None

    def to_json(self) -> dict[str, Any]:
        """Returns entries of `model.json`."""
        return {
            "image_shape": list(self.image_shape),
            "endpoints": [endpoint.to_json() for endpoint in self.endpoints],
            "classes": self.classes,
            **({"latent": self.latent} if self.latent else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Signature":
        """Restores a signature from `model.json`.

        Raises:
          KeyError, TypeError, ValueError: an entry is missing or not of its form.
        """
        if len(content["endpoints"]) > _MOST_ENDPOINTS:
            raise ValueError(f"{len(content['endpoints'])} endpoints")
        endpoints = []
        for entry in content["endpoints"]:
            if not is_plain_name(entry["name"]):
                raise ValueError(f"an endpoint is named {str(entry['name'])[:40]!r}")
            height, width, units = entry["shape"]
            endpoints.append(
                Endpoint(
                    entry["name"],
                    (_side(height), _side(width), _whole(units, 1, _LARGEST_COUNT)),
                    str(entry["layout"])[:20],
                    _whole(entry["prefix_tokens"], 0, _LARGEST_COUNT),
                )
            )
        if len({endpoint.name for endpoint in endpoints}) < len(endpoints):
            raise ValueError("two endpoints have one name")
        height, width, channels = content["image_shape"]
        latent = _whole(content.get("latent", 0), 0, LARGEST_LATENT)
        return cls(
            (_side(height), _side(width), _whole(channels, 1, 4)),
            tuple(endpoints),
            _whole(content["classes"], 0, 0 if latent else _LARGEST_COUNT),
            latent,
        )


def is_plain_name(name: Any) -> bool:
    """Returns whether a name can be that of a folder and of a flag's value."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        return False
    odd = set(name) & set('/\\,:*?"<>|') or printable(name) != name
    return not odd and name.strip(" .") == name


def _side(value: Any) -> int:
    return _whole(value, 1, _LARGEST_SIDE)


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{ascii(value)[:40]} is not in {least} .. {most}")
    return value


def write(
    function: Callable[[dict[str, Any], jax.Array], tuple[dict, Any]],
    parameters: Mapping[str, np.ndarray],
    signature: Signature,
    dtype: str,
) -> bytes:
    """Returns a function as a graph's text.

    Args:
      function: (parameters, images or latents) -> ({endpoint: map}, logits, a
        generator's images, or None), pure, for a symbolic batch; all are of `dtype`.
      parameters: its parameters.
      signature: what it takes and returns.
      dtype: 'float32' or 'bfloat16'.

    Raises:
      UserError: the function does something that a graph may not.
    """

    def network(params, images):
        maps, own = function(params, images)
        found = [maps[endpoint.name] for endpoint in signature.endpoints]
        return found if own is None else [*found, own]

    (batch,) = export.symbolic_shape("batch")
    made = export.export(jax.jit(network, keep_unused=True), platforms=PLATFORMS)(
        *_arguments(parameters, signature, dtype, batch)
    )
    with graph_check.context():
        module = mlir.deserialize_portable_artifact(bytes(made.mlir_module_serialized))
        text = module.operation.get_asm(print_generic_op_form=True)
    try:
        Graph(text, parameters, signature, dtype, PLATFORMS)
    except UserError as error:
        raise UserError(f"the network cannot be kept as a graph: {error}") from error
    return text.encode("ascii")


class Graph:
    """A graph as a function, checked.

    Args:
      text: the graph.
      parameters: its weights; only names, shapes and types are used.
      signature: what it takes and returns.
      dtype: of images and maps.
      platforms: those that it was written for.

    Raises:
      UserError: the graph has something that it may not have, or is not of this
        signature.
    """

    def __init__(
        self,
        text: str,
        parameters: Mapping[str, Any],
        signature: Signature,
        dtype: str,
        platforms: Sequence[str],
    ):
        self._signature, self._dtype = signature, dtype
        graph_check.check_text(text)
        (batch,) = export.symbolic_shape("batch")
        arguments = _arguments(parameters, signature, dtype, batch)
        # Everything but the module itself comes from the export of an empty function
        # of the same signature, not from a file.
        empty = export.export(
            jax.jit(self._empty, keep_unused=True), platforms=tuple(platforms)
        )(*arguments)
        with graph_check.context():
            module = graph_check.parse(text)
            index = [((), "i32")] if len(platforms) > 1 else []
            graph_check.check_module(
                module,
                [*index, *map(_type, empty.in_avals)],
                [*map(_type, empty.out_avals)],
            )
            packed = graph_check.packed(module)
        self._exported = dataclasses.replace(empty, mlir_module_serialized=packed)
        if export.default_export_platform() in platforms:
            self._check_sizes(_arguments(parameters, signature, dtype, 1))

    def _check_sizes(self, arguments: tuple) -> None:
        try:
            lowered = jax.jit(self._exported.call).lower(*arguments)
            content = io.BytesIO()
            module: Any = lowered.compiler_ir("stablehlo")
            module.operation.write_bytecode(content)
            refined = mlir.refine_polymorphic_shapes(content.getvalue())
        except Exception as error:  # of XLA and MLIR, many types
            raise UserError(
                f"its shapes do not fit: {printable(' '.join(str(error).split()))}"
            ) from None
        with graph_check.context():
            graph_check.check_sizes(ir.Module.parse(refined))

    def _empty(self, params: Any, images: jax.Array) -> list[jax.Array]:
        """Returns arrays of the shapes that the graph returns."""
        shapes: list[tuple[int, ...]] = [e.shape for e in self._signature.endpoints]
        shapes += [shape for shape in [self._signature.output_shape] if shape]
        arrays = [jnp.zeros((images.shape[0], *shape), self._dtype) for shape in shapes]
        return _without_gradient(arrays, params, images)

    def __call__(
        self, params: dict[str, jax.Array], images: Float[Array, "batch ..."]
    ) -> tuple[dict[str, jax.Array], jax.Array | None]:
        """Returns {endpoint: map}, and logits, a generator's images, or None.

        What is not used of them is not computed in a compiled function.
        """
        found = self._exported.call(params, images.astype(self._dtype))
        names = [endpoint.name for endpoint in self._signature.endpoints]
        own = found[len(names)] if self._signature.output_shape else None
        return dict(zip(names, found, strict=False)), own


@jax.custom_vjp
def _without_gradient(arrays: list[jax.Array], *inputs: Any) -> list[jax.Array]:
    del inputs
    return arrays


def _refuse(*given):
    raise NotImplementedError("a network kept as a graph has no gradient")


_without_gradient.defvjp(_refuse, _refuse)


def _arguments(
    parameters: Mapping[str, Any], signature: Signature, dtype: str, batch: Any
) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    params = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in parameters.items()
    }
    return params, jax.ShapeDtypeStruct((batch, *signature.input_shape), dtype)


def _type(array: Any) -> tuple[tuple[int | None, ...], str]:
    shape = tuple(n if isinstance(n, int) else None for n in array.shape)
    return shape, _OF_NUMPY[str(array.dtype)]


def describe(
    network: str, texts: Mapping[str, bytes], signature: Signature
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the entries 'architecture' and 'graph' of `model.json`.

    Args:
      network: what the network is called.
      texts: {dtype: the graph}.
      signature: signature of the graphs.
    """
    hashes = {dtype: _sha256(text) for dtype, text in texts.items()}
    architecture = {"name": NAME, "network": network, "graphs": hashes}
    return architecture, {
        **signature.to_json(),
        "platforms": list(PLATFORMS),
        "stablehlo": graph_check.stablehlo.get_current_version(),
        "calling_convention": export.maximum_supported_calling_convention_version,
    }


def files(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns {file in the checkpoint folder: content}.

    Args:
      texts: {dtype: the graph}.
    """
    return {f"graph.{dtype}.mlir": text for dtype, text in texts.items()}


def read(
    folder: paths.Path,
    architecture: Mapping[str, Any],
    content: Mapping[str, Any],
    parameters: Mapping[str, np.ndarray],
    dtype: str,
) -> tuple[Graph, Signature]:
    """Reads a graph of a checkpoint folder, for this machine.

    Args:
      folder: the folder.
      architecture: as in its `model.json`.
      content: the entry 'graph' of its `model.json`.
      parameters: its weights.
      dtype: 'float32' or 'bfloat16'.

    Raises:
      UserError: the graph is missing, damaged, not allowed, of a newer version, or not
        for this platform.
      KeyError, TypeError, ValueError, AttributeError: an entry is not of its form.
    """
    signature = Signature.from_json(content)
    hashes = {str(kind): str(each) for kind, each in architecture["graphs"].items()}
    platforms = tuple(dict.fromkeys(map(str, content["platforms"])))
    if not platforms or set(platforms) - {*PLATFORMS, "rocm"}:
        raise ValueError(f"platforms are {printable(', '.join(platforms), 60)}")
    version = _whole(content["calling_convention"], 0, 10**6)
    stablehlo = str(content["stablehlo"])[:20]
    where = f"the graph of checkpoint {folder}"
    low = export.minimum_supported_calling_convention_version
    high = export.maximum_supported_calling_convention_version
    if not low <= version <= high:
        raise UserError(
            f"{where} has calling convention {version}, but this jax {jax.__version__} "
            f"reads {low} to {high}; convert the network again"
        )
    here = export.default_export_platform()
    if here not in platforms:
        raise UserError(
            f"{where} is for {', '.join(platforms)}, but this machine's devices are "
            f"{here}; convert the network again, or set JAX_PLATFORMS=cpu"
        )
    file = folder / f"graph.{dtype}.mlir"
    if dtype not in hashes or not file.is_file():
        raise UserError(f"{where} is not there for {dtype} ({file.name} is missing)")
    if file.stat().st_size > graph_check.MOST_BYTES:
        raise UserError(f"{where} is refused: {file.name} is too large")
    text = paths.read_bytes(file)
    if _sha256(text) != hashes[dtype]:
        raise UserError(
            f"{where} differs from the one that was written ({file.name}); convert the "
            "network again"
        )
    for name, array in parameters.items():
        if str(array.dtype) not in _OF_NUMPY:
            raise UserError(f"{where} takes {printable(name)} of type {array.dtype}")
    try:
        plain = text.decode("ascii", "replace")
        return Graph(plain, parameters, signature, dtype, platforms), signature
    except UserError as error:
        newer = _version(stablehlo) > _version(
            graph_check.stablehlo.get_current_version()
        )
        reason = f"it is of the newer StableHLO {printable(stablehlo)}; " * newer
        raise UserError(f"{where} is refused: {reason}{error} ({file.name})") from error


def as_classifier(
    graph: Graph, signature: Signature, where: str
) -> Callable[..., tuple[jax.Array | None, dict[str, jax.Array]]]:
    """Returns `apply(params, images, endpoints=None)` as `models.as_function` does.

    Images of another size are resized, if they have the same proportions. A generator
    takes latents [batch, number], and returns its images in place of logits.

    Args:
      graph: the network.
      signature: signature of the network.
      where: the checkpoint, for messages.
    """
    names = tuple(endpoint.name for endpoint in signature.endpoints)
    height, width, _ = signature.image_shape

    def fitting(images):
        rows, columns = images.shape[1:3]
        if rows * width != columns * height:
            raise UserError(
                f"checkpoint {where} was converted for images of {height}x{width} "
                f"pixels, but these are {rows}x{columns}; convert it again with "
                f"--size={rows}x{columns}"
            )
        return resized(images, (height, width))

    def apply(params, images, endpoints=None):
        given = images if signature.latent else fitting(images)
        asked = names if endpoints is None else check_endpoints(endpoints, names)
        maps, own = graph(params, given)
        found = {name: maps[name] for name in asked}
        return (None if endpoints else own), found

    return apply


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@functools.cache
def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        return ()
