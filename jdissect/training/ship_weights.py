"""Adds a trained network to those that come with the package.

    python -m jdissect.training.ship_weights --run=runs/mixup-train --name=mixup

Writes jdissect/weights/NAME, with kernels as float16 if that changes no reported figure
(else float32), and the network's entry in jdissect/weights/manifest.json: its config,
seed, steps, date, and its scores, measured with the weights as written.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.checkpoints import shipped
from jdissect.checkpoints import weights as checkpoint_folder
from jdissect.evaluation import run
from jdissect.runtime import command_line, plain_flags
from jdissect.training import train_segmenter

Scores = dict[str, Any]


def ship(
    trained: Path, name: str, measure: Callable[[str, dict], Scores], folder: Path
) -> dict[str, Any]:
    """Writes a network and its manifest entry.

    Args:
      trained: checkpoint folder of the network.
      name: name under which to ship it.
      measure: maps a checkpoint folder and its training config to scores.
      folder: folder of the shipped networks.

    Returns:
      The manifest entry.

    Raises:
      UserError: the checkpoint cannot be read, or the folder cannot be written.
    """
    parameters, description = checkpoint_folder.load(trained)
    source = dict(description["source"])
    config = source.pop("config")
    config["data"]["path"] = ""  # the location of the pictures does not matter
    wanted = measure(str(trained), config)
    # Vectors are small, and their variances may not fit into 16 bits.
    halves = {
        key: array.astype(np.float16) if array.ndim > 1 else array
        for key, array in parameters.items()
    }
    description = {
        **{key: description[key] for key in description if key != "weights_sha256"},
        "source": {key: source[key] for key in ("classes",) if key in source},
    }
    chosen, scores, kind = parameters, wanted, "float32"
    with tempfile.TemporaryDirectory() as trial:
        checkpoint_folder.save(Path(trial) / name, halves, description, tensors=True)
        rounded = measure(str(Path(trial) / name), config)
    if rounded == wanted:
        chosen, kind = halves, "float16"
    else:
        print(f"{name}: float16 changes {_changes(wanted, rounded)}; using float32")
    sha256 = checkpoint_folder.save(
        folder / name, chosen, description, overwrite=True, tensors=True
    )
    entry = {
        **{key: source[key] for key in ("seed", "steps", "date")},
        "kernels": kind,
        "bytes": (folder / name / checkpoint_folder.TENSORS).stat().st_size,
        "weights_sha256": sha256,
        "scores": scores,
        "config": config,
    }
    path = folder / shipped.MANIFEST
    manifest = json.loads(path.read_bytes()) if path.is_file() else {}
    manifest = dict(sorted({**manifest, name: entry}.items()))
    write_whole(path, (json.dumps(manifest, indent=2) + "\n").encode())
    return entry


def measure(weights: str, config: Mapping[str, Any]) -> Scores:
    """Returns a network's scores on the validation split of its training data.

    Args:
      weights: checkpoint folder.
      config: config of its training.
    """
    settings = ml_collections.ConfigDict(config)
    if checkpoint_folder.read_description(weights)["kind"] == "segmenter":
        found = train_segmenter.measure(weights, settings)
        return {key: round(value, 1) for key, value in found.items()}
    settings.model.weights = weights
    settings.data.split = settings.train.validation_split
    settings.data.num_images = settings.train.validation_images
    found = run.evaluate(settings, tell=lambda _: None)
    return {key: found[key] for key in ("top1_error", "top5_error", "images")}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {before[key]} -> {after.get(key)}"
        for key in before
        if before[key] != after.get(key)
    )


_OPTIONS = {
    "run": ("", "Work directory of a training run."),
    "name": ("", "Name under which to ship its network."),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and ships; returns the exit code."""
    usage = "jdissect.training.ship_weights --run=DIR --name=NAME"
    options, rest, _ = plain_flags.parse(argv, usage, _OPTIONS)
    if rest or not (options.run and options.name):
        raise UserError("give --run=DIR and --name=NAME, and nothing else; see --help")
    entry = ship(Path(options.run) / "model", options.name, measure, shipped.FOLDER)
    print(f"{options.name}: {entry['bytes']:,} bytes, {entry['kernels']}")
    print(json.dumps(entry["scores"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
