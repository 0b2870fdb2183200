"""Decides whether two runs are the same: hashes values, code and the platform."""

import ast
import functools
import hashlib
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib

# The modules and folders of this package that compute a run's numbers.
RUN_SOURCES = (
    *("dissection", "results/group_counts", "base/concepts"),
    *("data/formats", "data/images", "data/label_maps", "datasets/coco_masks"),
    *("ops", "models", "segmenters"),
)
# XLA options that change no number: the number of CPU devices, and dumps of the
# compilation.
_WITHOUT_EFFECT = ("--xla_force_host_platform_device_count", "--xla_dump")
_COMPILER_OPTIONS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_TYPES = ("annotation", "returns")
_VECTORS = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "sve", "neon", "bf16", "i8mm")


def digest(value: Any) -> str:
    """Returns the sha256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def source_hash(names: tuple[str, ...] = RUN_SOURCES) -> str:
    """Returns the sha256 of source code without its comments, docstrings and types.

    Args:
      names: modules and folders of this package; default `RUN_SOURCES`.

    Raises:
      ModuleNotFoundError: a name is neither a module nor a folder.
    """
    package = Path(__file__).parents[1]
    files: list[Path] = []
    for name in names:
        module = package / f"{name}.py"
        found = [module] if module.is_file() else [*(package / name).rglob("*.py")]
        if not found:
            raise ModuleNotFoundError(f"jdissect has no module or folder '{name}'")
        files += found
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(package).as_posix().encode() + b"\0")
        total.update(_code_of(path).encode() + b"\0")
    return total.hexdigest()


@functools.cache
def _code_of(path: Path) -> str:
    return code(path.read_text(encoding="utf-8"))


def code(text: str) -> str:
    """Returns a program's syntax tree as text, equal on all Python versions.

    Comments, docstrings, annotations and layout are left out.
    """
    return _text(ast.parse(text))


def _text(node: Any) -> str:
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, _DOCUMENTED):
            documented = ast.get_docstring(node, clean=False) is not None
            value = value[1:] if documented else value
        # Newer Python versions add fields, which are empty for older programs.
        if value is not None and value != [] and name not in _TYPES:
            parts.append(f"({name!r}, {_text(value)})")
    return f"({type(node).__name__!r}, [{', '.join(parts)}])"


def computing() -> dict[str, Any]:
    """Returns what determines a compiled program's bits besides the program itself.

    Returns:
      JSON: platform, JAX versions, device kind (for CPUs with their instruction sets),
      compiler options, and matmul precision.
    """
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": _instructions() if device.platform == "cpu" else device.device_kind,
        "compiler options": _compiler_options(),
        # JAX makes its options at run time.
        "matmul precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    }


@functools.cache
def _instructions() -> str:
    """Returns the processor type, with its vector instructions if Linux lists them."""
    known: list[str] = []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                known = [each for each in value.split() if each.startswith(_VECTORS)]
                break
    return " ".join([platform.machine(), *sorted(known)])


def _compiler_options() -> list[str]:
    found = []
    for name in _COMPILER_OPTIONS:
        for option in shlex.split(os.environ.get(name, "")):
            if not option.startswith(_WITHOUT_EFFECT):
                found.append(f"{name} {option}")
    return sorted(found)


def identity(
    *, images: Sequence[tuple[str, str]], model: Any, segmenter: Any, keys: Mapping
) -> dict[str, Any]:
    """Returns a run's identity, part by part.

    Args:
      images: (name, content hash) of each image, in order.
      model: JSON that identifies the weights.
      segmenter: JSON that identifies the label maps.
      keys: every config key that can change a number.
    """
    return {
        "images": digest([list(pair) for pair in images]),
        "model": digest(model),
        "segmenter": digest(segmenter),
        "source": source_hash(),
        **computing(),
        **{key: json.loads(json.dumps(value)) for key, value in keys.items()},
    }
