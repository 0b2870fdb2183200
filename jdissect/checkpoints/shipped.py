"""The checkpoints that come with the package, by name: 'shipped:mixup'."""

import json
from pathlib import Path
from typing import Any

from jdissect.base.errors import UserError

PREFIX = "shipped:"
FOLDER = Path(__file__).parents[1] / "weights"
MANIFEST = "manifest.json"  # beside them: how each was trained, and its scores


def names() -> list[str]:
    """Of the checkpoints that are there."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model.json"))


def resolve(weights: str) -> str:
    """The folder that `config.model.weights` or a segmenter's key means.

    Args:
      weights: 'shipped:NAME', or a folder, which is returned as it is.

    Raises:
      UserError: nothing of that name is shipped.
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
    """What the manifest says of 'shipped:NAME': how it was trained, and its scores.

    Raises:
      UserError: as `resolve`.
    """
    name = Path(resolve(weights)).name
    return json.loads((FOLDER / MANIFEST).read_bytes())[name]
