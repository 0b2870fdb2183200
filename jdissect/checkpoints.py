"""Checkpoint folders: weights as Orbax writes them, and a JSON that says what they are.

    FOLDER/params/       Orbax: every parameter and statistic, float32, unfolded
    FOLDER/model.json    format_version, kind, architecture, preprocessing, source,
                         weights_sha256

A folder appears whole or not at all: it is written aside and renamed. What is loaded
is compared with the hash that was written, so that damage cannot pass for weights.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jdissect import models, orbax_trees
from jdissect.errors import UserError
from jdissect.models.layers import fold_batch_norm
from jdissect.models.preprocess import Preprocessing

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network ready to run.

    Attributes:
      apply: `apply(params, images, endpoints=None)` on *normalized* images returns
        `(logits, {endpoint: feature map})`; see `models.as_function`.
      params: its parameters, a pytree of device arrays.
      preprocessing: the normalization its images need.
      architecture: name and options, as in `model.json`.
      classes: number of logits.
      endpoint_names: in order of depth.
      input_size: side of the square images it was trained on.
      weights_sha256: identifies the weights.
    """

    apply: Callable
    params: nnx.State
    preprocessing: Preprocessing
    architecture: dict[str, Any]
    classes: int
    endpoint_names: tuple[str, ...]
    input_size: int
    weights_sha256: str


def weights_sha256(parameters: Mapping[str, np.ndarray]) -> str:
    """A hash over names (sorted), dtypes, shapes and bytes of the arrays."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        array = np.ascontiguousarray(parameters[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def describe_classifier(
    architecture: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    input_size: int = 224,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a classifier that `save` takes.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
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


def check_output(folder: str | os.PathLike, overwrite: bool = False) -> None:
    """Raises UserError if `save` would refuse `folder`: call it before long work."""
    folder = Path(folder)
    if not (folder.exists() or folder.is_symlink()):
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name another")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{folder} exists; name another folder or give --overwrite")
    if not (folder / "model.json").is_file():
        raise UserError(
            f"{folder} holds something other than a checkpoint and is left alone; "
            "name another folder"
        )


def save(
    folder: str | os.PathLike,
    parameters: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> str:
    """Writes a checkpoint folder whole.

    Args:
      folder: to be made; its parents too.
      parameters: name, with dots between levels, -> array (`models.parameters`).
      description: goes to `model.json`, beside format_version and weights_sha256.
      overwrite: whether an existing checkpoint is replaced.

    Returns:
      The hash of the weights.

    Raises:
      UserError: the folder exists, is not a checkpoint, or cannot be written.
    """
    check_output(folder, overwrite)
    folder = Path(folder).absolute()
    parameters = {k: np.asarray(v) for k, v in parameters.items()}
    digest = weights_sha256(parameters)
    content = {"format_version": FORMAT_VERSION, **description}
    content["weights_sha256"] = digest
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        orbax_trees.write(aside / "params", _nest(parameters))
        text = json.dumps(content, indent=2, sort_keys=True)
        (aside / "model.json").write_text(text + "\n")
        _replace(aside, folder)
    except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {folder}: {reason}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return digest


def _replace(aside: Path, folder: Path) -> None:
    """Renames `aside` to `folder`; an old checkpoint there is kept until it is."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    had_one = folder.exists()
    if had_one:
        folder.rename(old)
    try:
        aside.rename(folder)
    except OSError:
        if had_one:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_description(
    folder: str | os.PathLike, kind: str | None = None
) -> dict[str, Any]:
    """The content of a checkpoint's `model.json`.

    Raises:
      UserError: there is no such checkpoint, it is damaged, of a later format, or
        not of the `kind` that is needed.
    """
    folder = Path(folder)
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
        content = json.loads(path.read_text())
        version = content["format_version"]
        needed = content["kind"], content["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, this version of jdissect reads "
            f"{FORMAT_VERSION}; convert the checkpoint anew"
        )
    if kind is not None and needed[0] != kind:
        raise UserError(f"checkpoint {folder} holds a {needed[0]}, not a {kind}")
    return content


def _damaged(folder: str | os.PathLike, error: Exception) -> UserError:
    what = f"no {error}" if isinstance(error, KeyError) else error
    path = Path(folder) / "model.json"
    return UserError(f"{path} is damaged; convert the checkpoint anew\n({what})")


def load(
    folder: str | os.PathLike, kind: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint folder.

    Args:
      folder: as `save` made it.
      kind: what its description must say, e.g. 'classifier'; None for anything.

    Returns:
      parameters {name: array} as saved, and the description.

    Raises:
      UserError: as `read_description`; or the weights are not those written.
    """
    folder = Path(folder).absolute()
    description = read_description(folder, kind)
    try:
        parameters = _flatten(orbax_trees.read(folder / "params"))
    except Exception as error:  # Orbax and TensorStore raise a dozen kinds
        raise UserError(
            f"the weights of checkpoint {folder} cannot be read; convert it anew\n"
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        ) from error
    if weights_sha256(parameters) != description["weights_sha256"]:
        raise UserError(
            f"the weights of checkpoint {folder} are not those that were written; "
            "convert it anew"
        )
    return parameters, description


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
      dtype: of the computation, 'float32' or 'bfloat16'; parameters are float32.
      fold: whether to fold; without, the network computes the same up to rounding.

    Raises:
      UserError: as `load`; the architecture is another or unknown; or a parameter
        is missing, unknown or misshapen, by name.
    """
    description = read_description(folder, "classifier")
    try:
        architecture = dict(description["architecture"])
        preprocessing = Preprocessing.from_json(description["preprocessing"])
        input_size = int(description["input_size"])
        found = architecture["name"]
        unfolded = models.shapes(models.build_abstract(**architecture))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise _damaged(folder, error) from error
    if name is not None and name != found:
        raise UserError(f"checkpoint {folder} holds a {found}, not a {name}")
    parameters, _ = load(folder, "classifier")
    models.check_parameters(parameters, unfolded, f"checkpoint {folder}")
    model = models.build_abstract(**architecture, folded=fold, dtype=dtype)
    if fold:
        parameters = fold_batch_norm(parameters, model.epsilon)
    apply, params = models.as_function(model)
    return Classifier(
        apply=apply,
        params=models.with_parameters(params, parameters),
        preprocessing=preprocessing,
        architecture=architecture,
        classes=unfolded["fc.bias"][0],
        endpoint_names=tuple(model.endpoint_names),
        input_size=input_size,
        weights_sha256=description["weights_sha256"],
    )


def _nest(flat: Mapping[str, np.ndarray]) -> dict:
    tree: dict = {}
    for name, array in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def _flatten(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = np.asarray(value)
    return flat
