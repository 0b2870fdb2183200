"""Opens a PyTorch module by name: of timm, torchvision, Hugging Face, or one's own.

    timm:vit_small_patch16_224            the name of a model of timm
    torchvision:resnet50                  the name of a model of torchvision
    hf:FOLDER, hf:FILE.json, hf:NAME      a configuration of transformers
    python:package.module:function        your own code: the function returns the module

Modules are made without weights: nothing is downloaded but a configuration that `hf:`
names and that is not on disk.
"""

import difflib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.models.preprocess import IMAGENET, Preprocessing

SOURCES = ("timm", "torchvision", "hf", "python")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a Hugging Face folder
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's


class Opened(NamedTuple):
    """A module, and what its own configuration says.

    Attributes:
      module: the torch.nn.Module, in evaluation mode.
      name: what it is called.
      size: (height, width) of its images; None if unknown.
      channels: number of channels of its images.
      preprocessing: normalization of its images; None if unknown.
      resizing: how its images were resized, for `model.json`.
      prefix_tokens: class and register tokens, if it says it.
      again: makes the module with another number of classes, or None.
      weights: file with its weights, if there is one beside its configuration.
      loaded: whether it comes with weights.
    """

    module: Any
    name: str
    size: tuple[int, int] | None = None
    channels: int = 3
    preprocessing: Preprocessing | None = None
    resizing: Mapping[str, Any] = {}
    prefix_tokens: int | None = None
    again: Callable[[int], Any] | None = None
    weights: Path | None = None
    loaded: bool = False


def open_module(model: str, size: tuple[int, int] | None) -> Opened:
    """Opens the module that `--model` names.

    Args:
      model: SOURCE:NAME, as above.
      size: (height, width) of its images; None: its own.

    Raises:
      UserError: there is no such source or module, a package is missing, or the code
        of `python:` fails.
    """
    source, _, name = model.partition(":")
    if source not in SOURCES or not name:
        raise UserError(
            f"--model={printable(model)} is not one of timm:NAME, torchvision:NAME, "
            "hf:FOLDER_OR_CONFIG, python:package.module:function"
        )
    openers = {
        "timm": _timm,
        "torchvision": _torchvision,
        "hf": _hugging_face,
        "python": _python,
    }
    opened = openers[source](name, size)
    opened.module.eval()
    return opened


def described(module: Any, name: str) -> Opened:
    """Returns a module with what it says about itself, as timm's modules do."""
    given = getattr(module, "pretrained_cfg", None)
    config = given if isinstance(given, dict) else {}
    size = config.get("input_size")
    numbers = (config.get("mean"), config.get("std"))
    tokens = getattr(module, "num_prefix_tokens", None)
    resizing = {k: config[k] for k in ("interpolation", "crop_pct") if k in config}
    return Opened(
        module,
        name,
        (int(size[1]), int(size[2])) if size else None,
        int(size[0]) if size else 3,
        _preprocessing(*numbers) if all(numbers) else None,
        resizing,
        tokens if isinstance(tokens, int) else None,
    )


def _timm(name: str, size: tuple[int, int] | None) -> Opened:
    timm = _package("timm", "timm")

    def build(classes: int | None = None):
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if size is not None:
            try:
                return timm.create_model(name, img_size=size, **options)
            except TypeError:  # networks for images of any size do not take it
                pass
        return timm.create_model(name, pretrained=False, **options)

    try:
        module = build()
    except RuntimeError as error:
        raise _unknown("timm", name, timm.list_models(), error) from error
    return described(module, name)._replace(again=build)


def _torchvision(name: str, size: tuple[int, int] | None) -> Opened:
    del size
    models = _package("torchvision.models", "torchvision")

    def build(classes: int | None = None):
        options = {} if classes is None else {"num_classes": classes}
        return models.get_model(name, weights=None, **options)

    try:
        module = build()
    except (ValueError, TypeError) as error:
        raise _unknown("torchvision", name, models.list_models(), error) from error
    # All weights of torchvision's classifiers are for these.
    return Opened(module, name, None, 3, IMAGENET, again=build)


def _hugging_face(name: str, size: tuple[int, int] | None) -> Opened:
    del size
    transformers = _package("transformers", "transformers")
    place = Path(name)
    folder = place if place.is_dir() else place.parent
    if place.suffix == ".json" and not place.is_file():
        raise UserError(f"--model=hf:{printable(name)}: there is no such file")
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        kinds = getattr(config, "architectures", None) or [""]
        classifies = kinds[0].endswith("ForImageClassification")
        kind = "AutoModelForImageClassification" if classifies else "AutoModel"
        module = getattr(transformers, kind).from_config(config)
    except Exception as error:  # of many types, for a file that is no configuration
        reason = printable(str(error).strip().partition("\n")[0])
        raise UserError(f"--model=hf:{printable(name)}: {reason}") from error
    preprocessor, side = _preprocessor(folder), getattr(config, "image_size", None)
    weights = [folder / file for file in _WEIGHTS if (folder / file).is_file()]
    return Opened(
        module,
        place.stem if place.suffix == ".json" else place.name,
        _size(preprocessor.get("crop_size") or preprocessor.get("size")) or _size(side),
        int(getattr(config, "num_channels", 3)),
        _of_preprocessor(preprocessor),
        {"interpolation": _RESAMPLING[preprocessor["resample"]]}
        if preprocessor.get("resample") in _RESAMPLING
        else {},
        weights=weights[0] if weights else None,
    )


def _preprocessor(folder: Path) -> Mapping[str, Any]:
    """Returns the content of a folder's preprocessor_config.json; {} if none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {printable(str(error))}") from error
    return content if isinstance(content, dict) else {}


def _of_preprocessor(content: Mapping[str, Any]) -> Preprocessing | None:
    numbers = content.get("image_mean"), content.get("image_std")
    return _preprocessing(*numbers) if all(numbers) else None


def _size(given: Any) -> tuple[int, int] | None:
    if isinstance(given, Mapping):
        if {"height", "width"} <= given.keys():
            return int(given["height"]), int(given["width"])
        given = given.get("shortest_edge")
    if isinstance(given, list | tuple) and len(given) == 2:
        return int(given[0]), int(given[1])
    return (given, given) if isinstance(given, int) else None


def _python(name: str, size: tuple[int, int] | None) -> Opened:
    del size
    path, _, function = name.rpartition(":")
    if not path or not function.isidentifier():
        raise UserError(
            f"--model=python:{printable(name)} is not python:package.module:function"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    where = f"--model=python:{printable(name)}"
    try:
        made = getattr(importlib.import_module(path), function)
        module = made() if inspect.isroutine(made) or inspect.isclass(made) else made
    except UserError:
        raise
    except Exception as error:  # anything: it is the user's own code
        reason = printable(f"{type(error).__name__}: {error}")
        raise UserError(f"{where}: {reason}") from error
    import torch

    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{where} gives a {type(module).__name__}, not a torch module")
    return described(module, function)._replace(loaded=True)


def _preprocessing(mean: Any, std: Any) -> Preprocessing:
    content = {"scale": 1 / 255, "mean": list(mean), "std": list(std)}
    return Preprocessing.from_json(content)


def _package(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # torchvision beside another torch raises others, too
        reason = printable(str(error).strip().partition("\n")[0])
        missing = (error.name or package) if isinstance(error, ImportError) else package
        raise UserError(
            f"{package} cannot be imported ({reason}); pip install {missing}"
        ) from error


def _unknown(source: str, name: str, known: list[str], error: Exception) -> UserError:
    if name in known:
        return UserError(f"{source}:{printable(name)}: {printable(str(error))}")
    close = difflib.get_close_matches(name, known, 3, 0.4)
    hint = f"; the closest: {', '.join(close)}" if close else ""
    return UserError(f"{source} has no model {printable(name)!r}{hint}")
