"""Makes the baselines of a dissection: a rotated layer, and the untrained network.

`rotation`: the activations of every pixel are multiplied by a random orthogonal matrix
before anything else, so that the units are directions of the same space, without the
network's own axes. If it has as many detectors, the axes do not matter.
`untrained`: the same architecture, with the training recipe's initial parameters.
Source: Bau et al. 2017, sections 4.2 and 4.4.
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.checkpoints.networks import SEGMENTERS, Classifier
from jdissect.checkpoints.unit_codes import UnitCodes
from jdissect.training.initialization import initial_parameters

ROTATION, UNTRAINED = "rotation", "untrained"
NAMES = ("", ROTATION, UNTRAINED)
_MOST_FEATURES = 2**14  # of a rotated layer: its matrix has 2 GB in float64


def of(config: ml_collections.ConfigDict) -> str:
    """Returns the baseline of a config, also of one from before there were any."""
    return config.model.get("baseline", "")


def check(config: ml_collections.ConfigDict) -> None:
    """Rejects a baseline that does not exist, or that the units contradict.

    Raises:
      UserError: the value of the key, and what it may be.
    """
    name = of(config)
    if name not in NAMES:
        raise UserError(
            f"config.model.baseline is {name!r:.60}; it must be {ROTATION}, "
            f"{UNTRAINED}, or '' for the network itself"
        )
    if config.model.get("baseline_seed", 0) < 0:
        raise UserError(
            f"config.model.baseline_seed is {config.model.baseline_seed}; it must be 0 "
            "or more"
        )
    if name == ROTATION and config.model.units:
        raise UserError(
            f"config.model.baseline={ROTATION} rotates a layer's own units; leave "
            "config.model.units empty"
        )
    if name == UNTRAINED and config.model.python:
        raise UserError(
            f"config.model.baseline={UNTRAINED} draws networks of config.model.weights;"
            " let the function of config.model.python return an untrained one"
        )


def identity(
    config: ml_collections.ConfigDict, codes: Mapping[str, UnitCodes]
) -> dict[str, Any]:
    """Returns the parts of a run's identity that a baseline adds to it; {} for none.

    Args:
      config: the whole config.
      codes: {layer: its rotation}.
    """
    name = of(config)
    if not name:
        return {}
    parts = {"model.baseline": name, "model.baseline_seed": config.model.baseline_seed}
    if name == ROTATION:
        # QR may round differently on another machine.
        parts["model.rotation"] = {layer: c.sha256 for layer, c in codes.items()}
    return parts


def rotation(features: int, seed: int, layer: str) -> UnitCodes:
    """Returns a random rotation of a layer's features, uniform over all of them.

    The matrix is the orthogonal factor of a matrix of normal numbers, with the signs
    that make it uniform in the sense of Haar.
    Source: Mezzadri 2007, arXiv:math-ph/0609050, section 5.

    Args:
      features: number of features.
      seed: determines the draw, together with the layer's name.
      layer: name of the layer.

    Raises:
      UserError: the matrix would be too large.
    """
    if features > _MOST_FEATURES:
        raise UserError(
            f"config.model.baseline={ROTATION}: layer '{layer}' has {features:,} "
            f"units, more than {_MOST_FEATURES:,}"
        )
    bits = np.random.default_rng([seed, zlib.crc32(layer.encode())])
    orthogonal, upper = np.linalg.qr(bits.standard_normal((features, features)))
    signs = np.where(np.diag(upper) < 0, -1.0, 1.0)
    encoder = np.ascontiguousarray(orthogonal * signs, np.float32)
    digest = hashlib.sha256(encoder.tobytes()).hexdigest()
    return UnitCodes({"encoder": encoder}, "linear", source=ROTATION, sha256=digest)


def untrained(model: Classifier, seed: int, dtype: str) -> Classifier:
    """Returns a network of the same architecture with initial parameters.

    Args:
      model: the trained network.
      seed: see `training.initialization.initial_parameters`.
      dtype: type in which the network computes.

    Raises:
      UserError: the architecture is not one of `models.ARCHITECTURES`.
    """
    name = model.architecture["name"]
    if name not in models.ARCHITECTURES or name in SEGMENTERS:
        known = ", ".join(n for n in models.ARCHITECTURES if n not in SEGMENTERS)
        raise UserError(
            f"config.model.baseline={UNTRAINED} can draw {known}, but not the "
            f"parameters of {model.name}"
        )
    parameters = initial_parameters(model.architecture, seed)
    total = hashlib.sha256()
    for key in sorted(parameters):
        total.update(key.encode() + b"\0" + parameters[key].tobytes())
    apply, params = models.for_inference(model.architecture, parameters, dtype=dtype)
    return dataclasses.replace(
        model, apply=apply, params=params, weights_sha256=total.hexdigest()
    )
