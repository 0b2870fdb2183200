"""UPerNet in PyTorch, with the tensor names of the published encoder and decoder."""

import functools

import numpy as np
import torch
from jdissect.converters.twins.encoder import Encoder, conv_norm, resize
from torch import nn

SCALES = (1, 2, 3, 6)


def roi_weights(size: int, bins: int) -> torch.Tensor:
    """Returns [bins, size]: the weight of each grid point in the mean over each bin.

    Straight from the definition. The interpolated function is linear between grid
    points, so trapezoids between a bin's ends and the grid points inside it integrate
    it exactly.
    """
    return torch.from_numpy(_integrals(size, bins))


@functools.cache  # an array: a cached inference-mode tensor would stay one
def _integrals(size: int, bins: int) -> np.ndarray:
    weights = np.zeros((bins, size))
    for b in range(bins):
        low, high = b * size / bins, (b + 1) * size / bins
        inside = np.arange(np.floor(low) + 1, np.ceil(high))
        nodes = np.concatenate([[low], inside, [high]])
        for i in range(size):
            hat = np.maximum(0, 1 - np.abs(nodes - i))
            weights[b, i] = np.trapezoid(hat, nodes) / (high - low)
    return weights


def roi_pool(x: torch.Tensor, bins: int) -> torch.Tensor:
    """Pools the whole map to bins x bins by Precise RoI pooling, in float64."""
    rows, columns = (roi_weights(size, bins).to(x.device) for size in x.shape[2:])
    return torch.einsum("yh,bchw,xw->bcyx", rows, x.double(), columns).to(x.dtype)


class Decoder(nn.Module):
    """Maps the encoder's four maps to scores of four kinds of concepts."""

    def __init__(
        self,
        channels: list[int],
        fpn_dim: int,
        objects: int,
        parts: int,
        materials: int,
        scenes: int,
    ):
        super().__init__()
        *lower, top = channels
        self.ppm_conv = nn.ModuleList([conv_norm(top, fpn_dim, 1) for _ in SCALES])
        self.ppm_last_conv = conv_norm(top + len(SCALES) * fpn_dim, fpn_dim, 3)
        self.fpn_in = nn.ModuleList([conv_norm(c, fpn_dim, 1) for c in lower])
        self.fpn_out = nn.ModuleList(
            [nn.Sequential(conv_norm(fpn_dim, fpn_dim, 3)) for _ in lower]
        )
        self.conv_fusion = conv_norm(len(channels) * fpn_dim, fpn_dim, 3)
        self.scene_head = nn.Sequential(
            conv_norm(fpn_dim, fpn_dim, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(fpn_dim, scenes, 1),
        )
        self.object_head = self._head(fpn_dim, objects)
        self.part_head = self._head(fpn_dim, parts)
        self.material_head = self._head(fpn_dim, materials)

    @staticmethod
    def _head(fpn_dim: int, classes: int) -> nn.Sequential:
        return nn.Sequential(
            conv_norm(fpn_dim, fpn_dim, 3), nn.Conv2d(fpn_dim, classes, 1)
        )

    def forward(
        self, maps: list[torch.Tensor], size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        *lower, top = maps
        # Resized before the convolution and its ReLU, which do not commute with it.
        pooled = [
            conv(resize(roi_pool(top, bins), top.shape[2:]))
            for bins, conv in zip(SCALES, self.ppm_conv, strict=True)
        ]
        above = self.ppm_last_conv(torch.cat([top, *pooled], 1))
        levels = [above]
        scene = self.scene_head(above)[:, :, 0, 0]
        for i in (2, 1, 0):
            lateral = self.fpn_in[i](lower[i])
            above = lateral + resize(above, lateral.shape[2:])
            levels.insert(0, self.fpn_out[i](above))
        finest = levels[0]
        levels = [resize(level, finest.shape[2:]) for level in levels]
        fusion = self.conv_fusion(torch.cat(levels, 1))
        return {
            "object": resize(self.object_head(fusion), size),
            "part": resize(self.part_head(fusion), size),
            "material": resize(self.material_head(finest), size),
            "scene": scene,
        }


class UPerNet(nn.Module):
    """Takes [batch, 3, height, width], BGR minus its means; returns {name: scores}.

    Scores are before softmax, [batch, classes, *size], for scenes [batch, classes].
    """

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        fpn_dim: int = 512,
        objects: int = 336,
        parts: int = 427,
        materials: int = 26,
        scenes: int = 365,
    ):
        super().__init__()
        self.encoder = Encoder(depth, width)
        self.decoder = Decoder(
            self.encoder.stage_channels, fpn_dim, objects, parts, materials, scenes
        )

    def forward(
        self, x: torch.Tensor, size: tuple[int, int] = (56, 56)
    ) -> dict[str, torch.Tensor]:
        return self.decoder(self.encoder(x), size)
