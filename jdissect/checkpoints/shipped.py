"""Finds the checkpoints that come with the package by name: 'shipped:mixup'."""

import json
from pathlib import Path
from typing import Any

from jdissect.base.errors import UserError

PREFIX = "shipped:"
FOLDER = Path(__file__).parents[1] / "weights"
MANIFEST = "manifest.json"  # how each was trained, and its scores


def names() -> list[str]:
    """Returns the names of the shipped checkpoints."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model.json"))


def resolve(weights: str) -> str:
    """Returns the folder that `config.model.weights` or a segmenter's key names.

    Args:
      weights: 'shipped:NAME', or a folder, which is returned unchanged.

    Raises:
      UserError: no checkpoint of that name is shipped.
    """
    if not weights.startswith(PREFIX):
        return weights
    name = weights.removeprefix(PREFIX)
    if name not in names():
        raise UserError(
            f"no network '{name}' comes with jdissect; there are: {', '.join(names())}"
        )
    return str(FOLDER / name)


def entry(weights: str) -> dict[str, Any]:
    """Returns the manifest's entry for 'shipped:NAME': its training and its scores.

    Raises:
      UserError: no checkpoint of that name is shipped.
    """
    name = Path(resolve(weights)).name
    return json.loads((FOLDER / MANIFEST).read_bytes())[name]
