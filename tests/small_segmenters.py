"""Two small segmenters' checkpoints, drawn at random: no PyTorch needed."""

import types

import numpy as np

from jdissect import models
from jdissect.checkpoints import networks

LABELS = {
    "object": ["-", "wall", "sky", "door", "car"],
    "part": ["-", "door", "wheel", "window", "cloud"],
    "material": ["-", "wood", "glass"],
    "scene": ["street", "room"],
    "object_part": {
        "car": ["-", "wheel", "window"],
        "wall": ["-", "door", "window"],
        "sky": ["-", "cloud"],
    },
}
COLORS = {
    "labels": [
        {"name": "-", "category": "color"},
        {"name": "black", "category": "color"},
        {"name": "red", "category": "color"},
        {"name": "dark", "category": "shade"},
        {"name": "light", "category": "shade"},
    ],
    "categories": [{"name": "color"}, {"name": "shade"}],
    "imageformat": {
        "byteorder": "BGR",
        "mean": [0.4, 0.45, 0.5],
        "stdev": [0.2, 0.25, 0.3],
    },
    "segsizes": [64, 96],
}
UPERNET = {
    "name": "upernet",
    "depth": 18,
    "width": 4,
    "fpn_dim": 12,
    "objects": 5,
    "parts": 8,
    "materials": 3,
    "scenes": 2,
}
PPM = {"name": "ppm", "depth": 18, "width": 4, "ppm_dim": 8, "classes": 5}


def draw(architecture, seed):
    """Parameters under which every part of a network matters."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, shape in models.shapes(models.build_abstract(**architecture)).items():
        if name.endswith("kernel"):
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif name.endswith(("scale", "var")):
            values = rng.uniform(0.5, 1.5, shape)
        else:  # without a bias all pixels come out alike
            values = rng.normal(0, 0.5, shape)
        parameters[name] = values.astype(np.float32)
    return parameters


def _save(folder, architecture, labels, seed):
    description = networks.describe_segmenter(architecture, labels)
    networks.save(folder, draw(architecture, seed), description)


def save_all(root):
    """Writes the folders of four segmenters.

    upernet; `other`, with other weights; color, which sees an image at two sizes;
    color_once, at one.
    """
    _save(root / "upernet", UPERNET, LABELS, 2)
    _save(root / "other", UPERNET, LABELS, 1)
    _save(root / "color", PPM, COLORS, 3)
    _save(root / "color_once", PPM, {**COLORS, "segsizes": [64]}, 3)
    return types.SimpleNamespace(
        upernet=root / "upernet",
        other=root / "other",
        color=root / "color",
        color_once=root / "color_once",
    )
