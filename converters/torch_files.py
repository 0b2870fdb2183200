"""Reads PyTorch checkpoint files without running code in them.

A pickle is a program. `torch.load(weights_only=True)` reads tensors, numbers and
containers and refuses everything else, in both of PyTorch's formats: zip archives, and
the plain pickles of versions before 1.6, which the papers' networks use. Also accepted
are the arguments that training programs keep, an `argparse.Namespace`, and strings of
Python 2. Safetensors files contain only arrays.
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

# Keys under which training programs store the tensors, the best choice first.
_STATE_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_PREFIX = "module."  # from torch.nn.DataParallel
_DEEPEST = 4  # maximum depth of nested dicts

Key = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The content of a file.

    Attributes:
      path: path of the file.
      sha256: sha256 of its bytes.
      states: the dicts with tensors in it, by key: () for the whole file and
        ('model_ema',) for what is under that key -> {name: torch tensor}.
      arch: the network's name according to the training program; '' if not given.
    """

    path: Path
    sha256: str
    states: dict[Key, dict[str, Any]]
    arch: str

    @property
    def likely(self) -> Key:
        """Key of the most likely place of the network's tensors."""
        for key in ((), *((name,) for name in _STATE_KEYS)):
            if len(self.states.get(key, ())) > 1:
                return key
        return max(self.states, key=lambda key: len(self.states[key]))

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the tensors of `likely` as NumPy arrays, without 'module.'.

        Raises:
          UserError: as `to_numpy`; or a name exists with and without 'module.'.
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
    """Returns the torch module.

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
        holds, would run code, or holds no tensors.
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
            f"checkpoint {path} has no named tensors, neither at the top nor "
            f"under a key such as {', '.join(_STATE_KEYS)}"
        )
    arch = content.get("arch") if isinstance(content, Mapping) else None
    return TorchFile(path, digest, states, arch if isinstance(arch, str) else "")


def _load(torch, path: Path) -> Any:
    if path.stat().st_size == 0:
        raise UserError(f"checkpoint {path} is empty; download it again")
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
    except Exception as error:  # torch raises many types for damaged files
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise UserError(
                f"checkpoint {path} is refused: reading it would run code ({code[1]}), "
                "which weights do not need.\n"
                "Save only its state_dict with a program that you trust."
            ) from error
        raise UserError(
            f"checkpoint {path} is damaged or not from PyTorch; download it again"
            f"{_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """Returns PyTorch's first sentence on one line; '' for unhelpful pickle errors."""
    if isinstance(error, pickle.UnpicklingError) or not str(error):
        return ""
    sentence = str(error).splitlines()[0].split(". ")[0]
    return f"\n({printable(sentence, 120)})"


def _load_safetensors(path: Path) -> dict[str, Any]:
    import safetensors.torch

    return safetensors.torch.load_file(path)


def _numpy_scalars() -> list:
    """Returns the types that pickle NumPy numbers, such as an accuracy."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # no stub
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
    """Yields the dicts of named tensors in a file's content, and their keys."""
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
    """Converts torch tensors to arrays; half precision is widened, other types stay.

    Raises:
      UserError: a tensor has no data, is sparse or quantized, or has a type that
        NumPy lacks, by name.
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
                f"{where}: {name} is of type {tensor.dtype}, which is not supported"
            ) from error
    return tensors
