"""What makes two runs the same: hashes of values and of the code that computes."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib


def digest(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


RUN_SOURCES = (
    *("dissection", "results/group_counts", "base/concepts"),
    *("data/formats", "data/images", "ops", "models", "segmenters"),
)


@functools.cache
def source_hash(names: tuple[str, ...] = RUN_SOURCES) -> str:
    """sha256 of source files: by default of all that compute a run's numbers.

    Args:
      names: modules and folders of this package.
    """
    here = Path(__file__).parents[1]
    files: list[Path] = []
    for name in names:
        file = here / f"{name}.py"
        files += [file] if file.is_file() else (here / name).rglob("*.py")
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(here).as_posix().encode() + b"\0")
        total.update(path.read_bytes() + b"\0")
    return total.hexdigest()


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
        "platform": jax.default_backend(),
        "jaxlib": jaxlib.__version__,
        **{key: json.loads(json.dumps(value)) for key, value in keys.items()},
    }
