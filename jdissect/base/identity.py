"""What makes two runs the same: hashes of values, of code, and of what computes."""

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

# All that computes a run's numbers: modules and folders of this package.
RUN_SOURCES = (
    *("dissection", "results/group_counts", "base/concepts"),
    *("data/formats", "data/images", "ops", "models", "segmenters"),
)
# Options of XLA that change no number: how many devices a CPU shows as, and what is
# written about a compilation.
_WITHOUT_EFFECT = ("--xla_force_host_platform_device_count", "--xla_dump")
_COMPILER_OPTIONS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_VECTORS = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "sve", "neon", "bf16", "i8mm")


def digest(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def source_hash(names: tuple[str, ...] = RUN_SOURCES) -> str:
    """sha256 of code, without its comments and docstrings.

    Args:
      names: modules and folders of this package, by default `RUN_SOURCES`.

    Raises:
      ModuleNotFoundError: there is no module or folder of a name.
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
    """A program's syntax tree in the same words for all versions of Python.

    Comments, docstrings and layout are not part of it.
    """
    return repr(_parts(ast.parse(text)))


def _parts(node: Any) -> Any:
    if isinstance(node, list):
        return [_parts(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    # Newer versions of Python have more fields, which are empty for older programs.
    kept = {name: value for name, value in fields.items() if value not in (None, [])}
    return type(node).__name__, [(name, _parts(value)) for name, value in kept.items()]


def computing() -> dict[str, Any]:
    """What decides the bits that a compiled program gives, beside the program.

    Returns:
      JSON: platform, versions of JAX, kind of device, of CPUs the instructions that
      they know, options of the compiler, and the precision of products.
    """
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": _instructions() if device.platform == "cpu" else device.device_kind,
        "compiler options": _compiler_options(),
        "matmul precision": jax.config.jax_default_matmul_precision,
    }


@functools.cache
def _instructions() -> str:
    """The kind of processor, with its vector instructions where Linux lists them."""
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
    """A run's identity by parts.

    Args:
      images: (name, content hash) in order.
      model: JSON, says which weights.
      segmenter: JSON, says which label maps.
      keys: each configuration key that can change a number.
    """
    return {
        "images": digest([list(pair) for pair in images]),
        "model": digest(model),
        "segmenter": digest(segmenter),
        "source": source_hash(),
        **computing(),
        **{key: json.loads(json.dumps(value)) for key, value in keys.items()},
    }
