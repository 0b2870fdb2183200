"""Opens the units that a config names: its tails, files of units, or a rotation."""

from collections.abc import Callable, Mapping

import ml_collections

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import unit_codes
from jdissect.dissection.unit_views import UnitViews
from jdissect.jobs import baselines

_KEY = "config.model.units"


def open_views(
    config: ml_collections.ConfigDict, features: Callable[[], Mapping[str, int]]
) -> UnitViews:
    """Returns what the units of a config's layers are.

    Args:
      config: the whole config.
      features: returns {layer: its number of features}; called if there are files, or
        a rotation.

    Raises:
      UserError: `config.model.units` names no layer of the config, a file is not one of
        its layer (see `unit_codes.read`), or a layer is too large to rotate.
    """
    if baselines.of(config) == baselines.ROTATION:
        seed = config.model.baseline_seed
        rotated = {
            layer: baselines.rotation(count, seed, layer)
            for layer, count in features().items()
        }
        return UnitViews(config.tail, rotated)
    files = files_of(config)
    counts = features() if files else {}
    return UnitViews(
        config.tail,
        {
            layer: unit_codes.read(file, layer, _KEY, counts[layer])
            for layer, file in files.items()
        },
    )


def files_of(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns {layer: file of its units}.

    Raises:
      UserError: the text is neither FILE nor LAYER:FILE,LAYER:FILE for the layers.
    """
    layers, text = tuple(config.model.layers), config.model.units
    if not text:
        return {}
    found: dict[str, str] = {}
    parts = text.split(",")
    named = [part.partition(":") for part in parts]
    if all(layer in layers for layer, _, _ in named):
        for layer, _, file in named:
            if layer in found:
                raise UserError(f"{_KEY} names layer '{layer}' twice")
            found[layer] = file
        return found
    if len(layers) == 1:
        return {layers[0]: text}
    raise UserError(
        f"{_KEY} is '{printable(text, 80)}'; with the layers {', '.join(layers)} it "
        "must be LAYER:FILE, or several with commas between them"
    )


def identity(views: UnitViews) -> dict[str, object]:
    """Returns the parts of a run's identity that tails and files add to it."""
    parts: dict[str, object] = {}
    if views.tail != "upper":
        parts["tail"] = views.tail
    hashes = {
        layer: codes.sha256
        for layer, codes in views.codes.items()
        if codes.source != baselines.ROTATION
    }
    if hashes:
        parts["model.units"] = hashes
    return parts
