"""Checkpoints in the published file formats, their weights drawn by a rule.

The published weights need a download. These have the same names, shapes and files, so
whatever reads the ones reads the others, and the original code computed golden arrays
with them.

The rule: the generator of tensor NAME is `default_rng([seed, crc32(NAME)])`. Batch-norm
statistics and head biases are not drawn but taken from `overrides.npz` of a golden
folder. They are calibrated on its pictures, so that activations, scores and label maps
look like a trained network's and no tensor is without effect.
"""

import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Seeds of the five state dicts, from that of a checkpoint.
SEEDS = {
    "resnet50": 0,
    "upp_encoder": 10,
    "upp_decoder": 11,
    "color_encoder": 20,
    "color_decoder": 21,
}
UPERNET = "upp-resnet50-upernet"
COLOR = "color-resnet18dilated-ppm_deepsup"
SEED = 100
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def draw(
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    overrides: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """float32 arrays by name; `num_batches_tracked` is an int64 zero."""
    arrays = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("num_batches_tracked"):
            arrays[name] = np.zeros((), np.int64)
            continue
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            values = rng.normal(0, 0.1, shape)
        elif len(shape) == 1 and name.endswith("weight"):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = rng.normal(0, 0.3, shape)
        elif len(shape) == 4:
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            values = rng.normal(0, np.sqrt(1 / shape[1]), shape)
        arrays[name] = np.asarray((overrides or {}).get(name, values), np.float32)
    return arrays


def state_dict(golden: Path, model: str, legacy: bool = False) -> dict:
    """The tensors of a model of `SEEDS`, as a golden folder has their shapes.

    Args:
        golden: a folder with `state_dicts.json` and `overrides.npz`.
        model: a name of `SEEDS`.
        legacy: without `num_batches_tracked`, as in old files.
    """
    import torch

    shapes = json.loads((golden / "state_dicts.json").read_text())[model]
    prefix = f"{model}/"
    with np.load(golden / "overrides.npz") as stored:
        overrides = {
            name.removeprefix(prefix): stored[name]
            for name in stored.files
            if name.startswith(prefix)
        }
    arrays = draw({k: v[0] for k, v in shapes.items()}, SEED + SEEDS[model], overrides)
    return {
        name: torch.from_numpy(array)
        for name, array in arrays.items()
        if not (legacy and name.endswith("num_batches_tracked"))
    }


def training_checkpoint(weights: dict) -> dict:
    """What CutMix-PyTorch and SaliencyMix save: DataParallel's names, an optimizer."""
    import torch

    params = [v for k, v in weights.items() if not k.endswith(_STATISTICS)]
    momentum = {
        i: {"momentum_buffer": torch.zeros_like(p)} for i, p in enumerate(params[:4])
    }
    group = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}
    return {
        "epoch": 299,
        "arch": "resnet",
        "state_dict": {f"module.{k}": v for k, v in weights.items()},
        "best_err1": 22.58,
        "best_err5": 6.4,
        "optimizer": {
            "state": momentum,
            "param_groups": [{**group, "params": list(range(len(params)))}],
        },
    }


def write(golden: Path, folder: Path, legacy: bool = False) -> Path:
    """Writes the published files of all three networks; returns their folder.

        resnet50/model_best.pth.tar                 a training checkpoint
        resnet50/torchvision.pth                    a plain state dict
        upp-resnet50-upernet/                       encoder and decoder, labels.json
        color-resnet18dilated-ppm_deepsup/          encoder and decoder, labels.json

    Args:
        golden: a folder with shapes, statistics and labels.
        folder: where to.
        legacy: in the serialization before PyTorch 1.6.
    """
    import torch

    def save(content, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    weights = state_dict(golden, "resnet50", legacy)
    save(weights, folder / "resnet50" / "torchvision.pth")
    save(training_checkpoint(weights), folder / "resnet50" / "model_best.pth.tar")
    for name, kind, epoch in ((UPERNET, "upp", 40), (COLOR, "color", 20)):
        for part in ("encoder", "decoder"):
            tensors = state_dict(golden, f"{kind}_{part}", legacy)
            save(tensors, folder / name / f"{part}_epoch_{epoch}.pth")
        shutil.copy(golden / f"{kind}_labels.json", folder / name / "labels.json")
    return folder
