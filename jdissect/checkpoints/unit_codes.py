"""Reads what turns a layer's features into other units: an autoencoder, or directions.

A file is a safetensors file with `encoder` [features, units] and perhaps `bias`
[units], `center` [features] and `threshold` [units], and the metadata `activation`
(one of `ops.latents.ACTIVATIONS`) and, for topk, `k`. It may come from anyone: names,
types and shapes are checked before an array is read.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from jaxtyping import Float32

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.printable import listed, printable
from jdissect.ops.latents import ACTIVATIONS

# What each array has; the shape in numbers of features and units.
_SHAPES = {
    "encoder": ("features", "units"),
    "bias": ("units",),
    "center": ("features",),
    "threshold": ("units",),
}
_TYPES = ("F64", "F32", "F16", "BF16")
_MOST_UNITS = 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class UnitCodes:
    """Units that are not a layer's own; see `ops.latents`.

    Attributes:
      arrays: {name: array}, float32 and finite.
      activation: one of `ops.latents.ACTIVATIONS`.
      k: number of latents that topk keeps at a position, else 0.
      source: where they come from, for messages.
      sha256: hash of the file; '' for arrays that come from no file.
    """

    arrays: Mapping[str, Float32[np.ndarray, "..."]]
    activation: str
    k: int = 0
    source: str = "units"
    sha256: str = ""

    @property
    def units(self) -> int:
        """Number of units."""
        return self.arrays["encoder"].shape[1]

    def check_features(self, features: int, layer: str) -> None:
        """Raises UserError if they are not of a layer with so many features."""
        _check_features(self.arrays["encoder"].shape, features, layer, self.source)


def read(
    file: str | os.PathLike, layer: str, what: str, features: int | None = None
) -> UnitCodes:
    """Reads a file of units.

    Args:
      file: a safetensors file on a disk.
      layer: name of the layer, for messages.
      what: the key or argument that names the file, for messages.
      features: number of features (channels) of the layer; None if not known yet.

    Raises:
      UserError: the file is missing, damaged, not of this form, or not of a layer with
        so many features; or a number is not finite.
    """
    path = paths.local(file, what)
    shown = printable(paths.as_text(path))
    if not path.is_file():
        raise UserError(f"{what}: {shown} is not a file")
    try:
        with safetensors.safe_open(path, "numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
            types = {name: s.get_dtype() for name, s in slices.items()}
            kind = _checked(shapes, opened.metadata() or {}, shown)
            if features is not None:
                _check_features(shapes["encoder"], features, layer, shown)
            for name, dtype in types.items():
                if dtype not in _TYPES:
                    raise UserError(
                        f"{shown}: '{name}' holds {printable(dtype)}, not floats"
                    )
            arrays = {name: _single(opened.get_tensor(name)) for name in slices}
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except UserError:
        raise
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"{shown} is not a safetensors file: {reason}") from None
    _check_finite(arrays, shown)
    return UnitCodes(arrays, *kind, shown, digest)


def given(
    arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], what: str
) -> UnitCodes:
    """Checks arrays that a caller gives in place of a file.

    Args:
      arrays: `encoder` and perhaps others, as in a file.
      about: `activation`, and `k` for topk.
      what: name of the argument, for messages.

    Raises:
      UserError: as `read`.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    kind = _checked(shapes, {name: str(text) for name, text in about.items()}, what)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise UserError(f"{what}: '{name}' holds {array.dtype}, not numbers")
    arrays = {name: _single(array) for name, array in arrays.items()}
    _check_finite(arrays, what)
    return UnitCodes(arrays, *kind, what)


def _checked(
    shapes: Mapping[str, tuple[int, ...]],
    about: Mapping[str, str],
    where: str,
) -> tuple[str, int]:
    """Returns (activation, k); raises UserError for what does not fit together."""
    if unknown := [name for name in shapes if name not in _SHAPES]:
        raise UserError(
            f"{where} has {listed(unknown)}; it may have only {', '.join(_SHAPES)}"
        )
    if len(encoder := shapes.get("encoder", ())) != 2 or 0 in encoder:
        found = f"has encoder {list(encoder)}" if encoder else "lacks 'encoder'"
        raise UserError(f"{where} {found}; it must be [features, units]")
    features, units = encoder
    if units > _MOST_UNITS:
        raise UserError(f"{where}: {units:,} units are more than {_MOST_UNITS:,}")
    for name, shape in shapes.items():
        sizes = {"features": features, "units": units}
        wanted = tuple(sizes[axis] for axis in _SHAPES[name])
        if shape != wanted:
            raise UserError(
                f"{where}: '{name}' has shape {list(shape)}, not {list(wanted)}"
            )
    activation = about.get("activation", "")
    if activation not in ACTIVATIONS:
        found = (
            f"says activation '{printable(activation)}'"
            if activation
            else ("does not say its activation")
        )
        raise UserError(f"{where} {found}; it must be {', '.join(ACTIVATIONS)}")
    if ("threshold" in shapes) != (activation == "jumprelu"):
        has = "has a threshold" if "threshold" in shapes else "lacks 'threshold'"
        raise UserError(f"{where} {has}, but its activation is {activation}")
    if ("k" in about) != (activation == "topk"):
        has = "says k" if "k" in about else "does not say k"
        raise UserError(f"{where} {has}, but its activation is {activation}")
    if activation != "topk":
        return activation, 0
    text = about["k"]
    # A number of more digits than `units` is too large, however long it is.
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(units))
    if not digits or not 1 <= int(text) <= units:
        raise UserError(f"{where}: k is {printable(text, 40)}, not 1 .. {units}")
    return activation, int(text)


def _check_features(
    encoder: tuple[int, ...], features: int, layer: str, where: str
) -> None:
    if encoder[0] != features:
        turned = "; transpose it" if encoder[1] == features else ""
        raise UserError(
            f"{where} has encoder [features, units] {list(encoder)}, but layer "
            f"'{printable(layer)}' has {features} features{turned}"
        )


def _single(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # found by `_check_finite`
        return np.ascontiguousarray(array, np.float32)


def _check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{where}: '{name}' has a number that is not finite")
