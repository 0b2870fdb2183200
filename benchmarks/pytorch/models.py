"""PyTorch networks from published files, as they are and as fast as they get."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jdissect.converters.twins.resnet import ResNet
from torch import nn
from torch.nn.utils import fusion

from jdissect.converters import torch_files


def load(network: nn.Module, source: Path | Mapping[str, np.ndarray]) -> nn.Module:
    """Loads a file's tensors, or the given ones; every parameter must be there."""
    tensors = (
        source if isinstance(source, Mapping) else torch_files.read(source).tensors
    )
    state = {name: torch.from_numpy(np.array(a)) for name, a in tensors.items()}
    missing, _ = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"{source} lacks {missing[0]}")
    return network


def load_resnet(source: Path | Mapping[str, np.ndarray], depth: int = 50, **options):
    """A classifier of `converters.twins`, in inference mode."""
    return load(ResNet(depth, **options), source).eval()


def quick(network: nn.Module, compile: bool = False) -> nn.Module:
    """Batch normalization folded, channels_last, perhaps compiled."""
    _fold(network)
    network = network.to(memory_format=torch.channels_last)
    return torch.compile(network) if compile else network


def _fold(module: nn.Module) -> None:
    """Folds every batch normalization into the convolution that comes before it."""
    before, before_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(module, before_name, fusion.fuse_conv_bn_eval(before, child))
            setattr(module, name, nn.Identity())
        else:
            _fold(child)
        before, before_name = child, name


def bilinear(size: int, target: int) -> torch.Tensor:
    """[target, size]: half-pixel centres, zeros outside (netdissect/upsample.py)."""
    if size == 1:
        return torch.ones(target, 1)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * size / target - 0.5
    distance = (centre[:, None] - torch.arange(size)).abs()
    return (1 - distance).clamp(min=0).float()
