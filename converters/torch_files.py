"""Reads PyTorch checkpoint files without running what they say.

A pickle is a program. `torch.load(weights_only=True)` reads tensors, numbers and
containers and refuses everything else, in both of PyTorch's formats: zip archives, and
the plain pickles of versions before 1.6, in which the networks of the papers come. So
are the arguments that training programs keep, an `argparse.Namespace`, and strings of
Python 2. A file of safetensors holds nothing but arrays.
"""

import argparse
import dataclasses
import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.converters import torch_claims

# Where training programs keep the tensors, the better choice first.
_STATE_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_PREFIX = "module."  # of torch.nn.DataParallel
_DEEPEST = 4  # dicts in dicts that are looked at

Key = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
      path: of the file.
      sha256: of its bytes.
      states: the dicts with tensors in it: where they are, () for the whole file and
        ('model_ema',) for what is under that key -> {name: torch tensor}.
      arch: what the training program says the network is; '' if it does not.
    """

    path: Path
    sha256: str
    states: dict[Key, dict[str, Any]]
    arch: str

    @property
    def likely(self) -> Key:
        """Where a network's tensors are if nothing is known of it."""
        for key in ((), *((name,) for name in _STATE_KEYS)):
            if len(self.states.get(key, ())) > 1:
                return key
        return max(self.states, key=lambda key: len(self.states[key]))

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Those of `likely` as NumPy arrays, without 'module.' in their names.

        Raises:
          UserError: as `to_numpy`; or a name is there with and without 'module.'.
        """
        state = self.states[self.likely]
        plain = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
        if len(plain) < len(state):
            twice = next(name for name in plain if f"{_PREFIX}{name}" in state)
            raise UserError(
                f"checkpoint {self.path} has {printable(twice)} with and without "
                f"{_PREFIX!r}"
            )
        return to_numpy(plain, f"checkpoint {self.path}")


def import_torch():
    """The torch module.

    Raises:
      UserError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "reading PyTorch files needs torch: pip install 'jdissect[convert]'"
        ) from error
    return torch


def read(path: str | os.PathLike) -> TorchFile:
    """Reads a state dict or a training checkpoint, of PyTorch or safetensors.

    Raises:
      UserError: torch or the file is missing; the file is damaged, claims more than it
        has, would run code, or holds no tensors.
    """
    torch = import_torch()
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} is {'a folder' if path.is_dir() else 'missing'}"
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content = _load(torch, path)
    except OSError as error:
        raise UserError(
            f"checkpoint {path} cannot be read: {error.strerror}"
        ) from error
    states = dict(_find_states(torch, content, (), {id(content)}))
    if not states:
        raise UserError(
            f"checkpoint {path} holds no tensors by name, neither itself nor "
            f"under a key such as {', '.join(_STATE_KEYS)}"
        )
    arch = content.get("arch") if isinstance(content, Mapping) else None
    return TorchFile(path, digest, states, arch if isinstance(arch, str) else "")


def _load(torch, path: Path) -> Any:
    if path.stat().st_size == 0:
        raise UserError(f"checkpoint {path} is empty; fetch it anew")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        torch_claims.check(path)
        harmless = [*_numpy_scalars(), argparse.Namespace]
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless):
            warnings.simplefilter("ignore")
            return torch.load(
                path, map_location="cpu", weights_only=True, encoding="latin1"
            )
    except (OSError, UserError):
        raise
    except Exception as error:  # torch raises a dozen kinds for damaged files
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise UserError(
                f"checkpoint {path} is refused: reading it would run code ({code[1]}), "
                "which weights do not need.\n"
                "Save its state_dict alone with a program that you trust."
            ) from error
        raise UserError(
            f"checkpoint {path} is damaged or no PyTorch checkpoint; fetch it anew"
            f"{_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """PyTorch's first sentence, as a line; of unpickling it says nothing of use."""
    if isinstance(error, pickle.UnpicklingError) or not str(error):
        return ""
    sentence = str(error).splitlines()[0].split(". ")[0]
    return f"\n({printable(sentence, 120)})"


def _load_safetensors(path: Path) -> dict[str, Any]:
    import safetensors.torch

    return safetensors.torch.load_file(path)


def _numpy_scalars() -> list:
    """What NumPy numbers are pickled with; an accuracy beside the weights is one."""
    scalar = np._core.multiarray.scalar
    kinds = {type(np.dtype(code)) for code in ("?bBhHiIlLqQefd")}
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        (np.dtype, "numpy.dtype"),
        *kinds,
    ]


def _find_states(
    torch, content: Any, key: Key, seen: set[int]
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """The dicts with tensors by name in what a file holds, and where they are."""
    if not isinstance(content, Mapping):
        return
    named = [(name, value) for name, value in content.items() if isinstance(name, str)]
    tensors = {k: value for k, value in named if isinstance(value, torch.Tensor)}
    if tensors:
        yield key, tensors
    for name, value in named:
        if len(key) < _DEEPEST and id(value) not in seen:
            seen.add(id(value))
            yield from _find_states(torch, value, (*key, name), seen)


def to_numpy(state: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Torch tensors as arrays; half precision is widened, other kinds stay.

    Raises:
      UserError: one has no data, is sparse or quantized, or is of no numbers that
        NumPy knows, by name.
    """
    torch = import_torch()
    tensors = {}
    for full_name, tensor in state.items():
        name = printable(full_name)
        if tensor.is_meta:
            raise UserError(f"{where}: {name} has a shape but no data (device 'meta')")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"{where}: {name} is sparse or quantized")
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        try:
            plain = tensor.detach().resolve_conj().resolve_neg()
            tensors[full_name] = plain.contiguous().numpy()
        except (TypeError, RuntimeError) as error:
            raise UserError(
                f"{where}: {name} is of type {tensor.dtype}, which is read as no number"
            ) from error
    return tensors
