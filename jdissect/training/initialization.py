"""The random start of a training, drawn on the host.

Convolutions from N(0, 2 / (k * k * out)), batch normalization at 1 and 0, the last
layers uniform in +-1 / sqrt(in), weight and bias (CutMix-PyTorch, resnet.py). That is
what the models' own initializers draw; NumPy's draws take no compilation and are the
same on every backend.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdissect import models

HEADS = ("fc", "score")  # what the linear layers are called


def initial_parameters(
    architecture: Mapping[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """Every parameter and statistic by name, float32.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      seed: decides the draws, with each parameter's name.
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
