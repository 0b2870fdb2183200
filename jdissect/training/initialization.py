"""Draws the initial parameters of a training run on the host.

Convolutions are from N(0, 2 / (k * k * out)), batch normalization is 1 and 0, and the
last layers' weights and biases are uniform in +-1 / sqrt(in) (CutMix-PyTorch,
resnet.py). The models' own initializers use the same distributions; NumPy's draws need
no compilation and are the same on every backend.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdissect import models

HEADS = ("fc", "score")  # names of the linear layers


def initial_parameters(
    architecture: Mapping[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """Returns every parameter and statistic by name, float32.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      seed: determines the draws, together with each parameter's name.
    """
    shapes = models.shapes(models.build_abstract(**architecture))

    def draw(name, shape):
        bits = np.random.default_rng([seed, zlib.crc32(name.encode())])
        layer, _, _ = name.rpartition(".")
        if layer.endswith(HEADS):
            bound = shapes[f"{layer}.kernel"][0] ** -0.5
            return bits.uniform(-bound, bound, shape)
        if len(shape) == 4:
            height, width, _, units = shape
            return bits.normal(0, (2 / (height * width * units)) ** 0.5, shape)
        return np.full(shape, name.endswith(("norm.scale", "norm.var")))

    return {name: draw(name, s).astype(np.float32) for name, s in shapes.items()}
