"""Reads PyTorch checkpoint files without running what they say.

A pickle is a program. `torch.load(weights_only=True)` reads tensors, numbers and
containers and refuses everything else, in both of PyTorch's formats: zip archives, and
the plain pickles of versions before 1.6, in which the networks of the papers come.
"""

import dataclasses
import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdissect.errors import UserError

# Where training programs keep the tensors, the better choice first.
_STATE_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_PREFIX = "module."  # of torch.nn.DataParallel


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The tensors of a file.

    Attributes:
      name: of the file, without folder.
      key: under which the state dict was found; '' if it is the whole file.
      sha256: of its bytes.
      tensors: name, without 'module.', -> array in PyTorch's layout. Half precision
        is widened to float32; other kinds are as they were.
    """

    name: str
    key: str
    sha256: str
    tensors: dict[str, np.ndarray]


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
    """Reads the tensors of a state dict, or of the one in a training checkpoint.

    Raises:
      UserError: torch or the file is missing; the file is damaged, would run code,
        or holds no tensors.
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
    key, state = _find_tensors(torch, content, path)
    return TorchFile(path.name, key, digest, _to_numpy(torch, state, path))


def _load(torch, path: Path) -> Any:
    if path.stat().st_size == 0:
        raise UserError(f"checkpoint {path} is empty; fetch it anew")
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_numpy_scalars()),
        ):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
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
    return f"\n({sentence[:120]})"


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


def _find_tensors(torch, content: Any, path: Path) -> tuple[str, Mapping[str, Any]]:
    """The mapping of names to tensors in what a file holds, and its key there."""
    if _is_state_dict(torch, content):
        return "", content
    for key in _STATE_KEYS if isinstance(content, Mapping) else ():
        if _is_state_dict(torch, content.get(key)):
            return key, content[key]
    raise UserError(
        f"checkpoint {path} holds no tensors by name, neither itself nor "
        f"under one of the keys {', '.join(_STATE_KEYS)}"
    )


def _is_state_dict(torch, content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, torch.Tensor) for value in content.values())
    )


def _to_numpy(torch, state: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for full_name, tensor in state.items():
        name = full_name.removeprefix(_PREFIX)
        if name in tensors:
            raise UserError(
                f"checkpoint {path} has {name} with and without {_PREFIX!r}"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"checkpoint {path}: {name} is sparse or quantized")
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        tensors[name] = tensor.detach().contiguous().numpy()
    return tensors
