"""Reads and writes checkpoint folders of any network.

    FOLDER/params/       Orbax: every parameter and statistic, float32, unfolded
    FOLDER/model.json    format_version, kind, architecture, source, weights_sha256;
                         preprocessing for a classifier, labels for a segmenter

Instead of params/ a folder may have `weights.safetensors`, one file with float32 or
float16 arrays. A network that is kept as StableHLO has its graphs beside them (see
`graphs`). Wherever a folder is read, 'shipped:NAME' is accepted too.

A folder appears atomically: it is written to a temporary folder and renamed; in an
object store `model.json` is written last, and a folder without it is not a checkpoint.
A checkpoint that is replaced stays until the new one is complete (see `replacing`).
Loaded weights are compared with the stored hash, so that damage is detected.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from jdissect.base import paths, replacing
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import graphs, orbax_io, shipped

FORMAT_VERSION = 1
# Weights of more than _SMALL bytes never compress to less than a thousandth.
_UNPACKED, _SMALL = 1000, 1 << 26
TENSORS = "weights.safetensors"
MARK = "model.json"
_OWNED = ("params", TENSORS, *graphs.FILES)


def weights_sha256(parameters: Mapping[str, np.ndarray]) -> str:
    """Returns a hash over names (sorted), dtypes, shapes and bytes of the arrays."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        array = np.ascontiguousarray(parameters[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_output(folder: str | os.PathLike, overwrite: bool = False) -> None:
    """Raises UserError if `save` would reject `folder`; call it before long work."""
    folder = paths.from_user(folder)
    remote = paths.is_remote(folder)
    if not (folder.exists() or (not remote and folder.is_symlink())):
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give another one")
    if paths.is_empty(folder) or (remote and _is_cut_off(folder)):
        return
    if not overwrite:
        raise UserError(f"{folder} exists; give another folder or --overwrite")
    if not (replacing.current(folder, MARK) / MARK).is_file():
        raise UserError(
            f"{folder} holds something other than a checkpoint and is not replaced; "
            "give another folder"
        )


def save(
    folder: str | os.PathLike,
    parameters: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    *,
    overwrite: bool = False,
    tensors: bool = False,
    files: Mapping[str, bytes] = {},
) -> str:
    """Writes a checkpoint folder atomically.

    Args:
      folder: folder to create, with its parents.
      parameters: name, with dots between levels, -> array (`models.parameters`).
      description: content of `model.json`, besides format_version and weights_sha256.
      overwrite: whether to replace an existing checkpoint.
      tensors: whether to write `weights.safetensors`. Then arrays may be float16, and
        the hash is that of the arrays as `load` returns them.
      files: {name: content} of further files, of `graphs.FILES`.

    Returns:
      The hash of the weights.

    Raises:
      UserError: the folder exists, is not a checkpoint, or cannot be written.
    """
    check_output(folder, overwrite)
    folder = paths.absolute(paths.to_path(folder))
    parameters = {k: np.asarray(v) for k, v in parameters.items()}
    digest = weights_sha256(_single(parameters) if tensors else parameters)
    content = {"format_version": FORMAT_VERSION, **description}
    content["weights_sha256"] = digest
    try:
        with paths.reaching(folder), _appearing(folder) as place:
            if tensors:
                packed = {k: np.ascontiguousarray(v) for k, v in parameters.items()}
                write_whole(place / TENSORS, safetensors.numpy.save(packed))
            else:
                orbax_io.write(place / "params", _nest(parameters))
            for name, data in files.items():
                write_whole(place / name, data)
            text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
            write_whole(place / MARK, utf8(text + "\n"))
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # also from TensorStore
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write {folder}: {printable(reason)}") from error
    return digest


@contextlib.contextmanager
def _appearing(folder: paths.Path) -> Iterator[paths.Path]:
    """Yields a temporary folder that replaces `folder` once complete."""
    there = not paths.is_remote(folder) and folder.is_dir()
    if paths.is_remote(folder) or (there and not paths.is_empty(folder)):
        with replacing.content_of(folder, MARK, _OWNED) as place:
            yield place
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        paths.make_folder(folder.parent)
        paths.remove_folder(aside)
        aside.mkdir()
        yield aside
        aside.rename(folder)
    finally:
        paths.remove_folder(aside)


def _is_cut_off(folder: paths.Path) -> bool:
    """Returns whether an object store's folder holds only an interrupted write."""
    return {entry.name for entry in folder.iterdir()} <= {*_OWNED}


def read_description(
    folder: str | os.PathLike, kind: str | None = None
) -> dict[str, Any]:
    """Returns the content of a checkpoint's `model.json`.

    Raises:
      UserError: the checkpoint is missing, damaged, of a newer format, or not of the
        given `kind`.
    """
    folder = resolved(folder)
    path = folder / "model.json"
    if not path.is_file():
        state = (
            "is not a checkpoint (no model.json)" if folder.exists() else "is missing"
        )
        raise UserError(
            f"checkpoint {folder} {state}; converters write them, "
            "for example `python -m converters.resnet`"
        )
    try:
        content = json.loads(paths.read_bytes(path))
        version = content["format_version"]
        needed = content["kind"], content["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(folder, error) from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {printable(str(version))}, but this jdissect "
            f"reads {FORMAT_VERSION}; convert the checkpoint again"
        )
    if kind is not None and needed[0] != kind:
        found = printable(str(needed[0]))
        raise UserError(f"checkpoint {folder} holds a {found}, not a {kind}")
    return content


def damaged(folder: str | os.PathLike, error: Exception) -> UserError:
    """Returns the error for a folder with an invalid `model.json`."""
    what = printable(f"no {error}" if isinstance(error, KeyError) else str(error))
    path = paths.to_path(folder) / "model.json"
    return UserError(f"{path} is damaged; convert the checkpoint again\n({what})")


def load(
    folder: str | os.PathLike,
    kind: str | None = None,
    check: Callable[[dict[str, tuple[int, ...]]], None] = lambda shapes: None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint folder.

    Args:
      folder: folder written by `save`.
      kind: required kind in the description, e.g. 'classifier'; None for any.
      check: called with {name: shape} before an array is read; may raise.

    Returns:
      parameters {name: array} as saved, and the description.

    Raises:
      UserError: as `read_description`; or the weights differ from those written, or
        claim to be larger than their files can hold.
    """
    folder = paths.absolute(resolved(folder))
    description = read_description(folder, kind)
    try:
        if (folder / TENSORS).is_file():
            parameters = _tensors(folder / TENSORS)
            check({name: array.shape for name, array in parameters.items()})
            parameters = _single(parameters)
        else:
            sizes = _flatten(orbax_io.shapes(folder / "params"))
            check(sizes)
            _check_claims(folder, sizes)
            parameters = _flatten(orbax_io.read(folder / "params"))
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types
        raise UserError(
            f"the weights of checkpoint {folder} cannot be read; convert it again\n"
            f"({type(error).__name__}: {printable(str(error))})"
        ) from error
    if weights_sha256(parameters) != description["weights_sha256"]:
        raise UserError(
            f"the weights of checkpoint {folder} differ from those that were written; "
            "convert it again"
        )
    return parameters, description


def _check_claims(folder: paths.Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Rejects arrays larger than files of this size can unpack to."""
    claimed = 4 * sum(math.prod(shape) for shape in shapes.values())
    if claimed <= _SMALL:
        return
    files = (folder / "params").rglob("*")
    there = sum(file.stat().st_size for file in files if file.is_file())
    if claimed > _SMALL + _UNPACKED * there:
        raise UserError(
            f"checkpoint {folder} claims {claimed:,} bytes of weights, but its files "
            f"have {there:,}; convert it again"
        )


def resolved(folder: str | os.PathLike) -> paths.Path:
    """Returns the folder that a user names, perhaps as 'shipped:NAME'."""
    text = os.fspath(folder)
    path = shipped.resolve(text)
    place = paths.from_user(folder if path == text else path)
    # A training run's network is part of its run directory.
    return replacing.find(place, MARK, of="training.json")


def _tensors(file: paths.Path) -> dict[str, np.ndarray]:
    if paths.is_remote(file):
        return safetensors.numpy.load(paths.read_bytes(file))
    return safetensors.numpy.load_file(file)


def _single(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts float16 arrays to float32, which is exact."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in parameters.items()
    }


def _nest(flat: Mapping[str, np.ndarray]) -> dict:
    tree: dict = {}
    for name, array in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def _flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
