"""Segmenters of ADE20K's objects in PyTorch, with the published tensor names."""

import torch
from jdissect.converters.twins import ppm
from jdissect.converters.twins.encoder import Encoder, conv_norm, resize
from torch import nn
from torch.nn import functional

SCALES = (1, 2, 3, 6)


class Decoder(nn.Module):
    """UPerNet's: averages in pyramids, and one linear layer after the fusion."""

    def __init__(self, channels: list[int], fpn_dim: int, ppm_dim: int, objects: int):
        super().__init__()
        *lower, top = channels
        self.ppm_conv = nn.ModuleList([conv_norm(top, ppm_dim, 1) for _ in SCALES])
        self.ppm_last_conv = conv_norm(top + len(SCALES) * ppm_dim, fpn_dim, 3)
        self.fpn_in = nn.ModuleList([conv_norm(c, fpn_dim, 1) for c in lower])
        self.fpn_out = nn.ModuleList(
            [nn.Sequential(conv_norm(fpn_dim, fpn_dim, 3)) for _ in lower]
        )
        self.conv_last = nn.Sequential(
            conv_norm(len(channels) * fpn_dim, fpn_dim, 3),
            nn.Conv2d(fpn_dim, objects, 1),
        )

    def forward(
        self, maps: list[torch.Tensor], size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        *lower, top = maps
        scales = [top]
        for bins, conv in zip(SCALES, self.ppm_conv, strict=True):
            averages = functional.adaptive_avg_pool2d(top, bins)
            scales.append(conv(resize(averages, top.shape[2:])))
        above = self.ppm_last_conv(torch.cat(scales, 1))
        levels = [above]
        for place in (2, 1, 0):
            lateral = self.fpn_in[place](lower[place])
            above = lateral + resize(above, lateral.shape[2:])
            levels.insert(0, self.fpn_out[place](above))
        finest = levels[0].shape[2:]
        scores = self.conv_last(torch.cat([resize(x, finest) for x in levels], 1))
        return {"object": resize(scores, size)}


class ObjectUPerNet(nn.Module):
    """Takes normalized images [batch, 3, height, width]; returns {'object': scores}.

    Scores are before softmax, [batch, objects, *size].
    """

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        fpn_dim: int = 512,
        ppm_dim: int = 512,
        objects: int = 150,
    ):
        super().__init__()
        self.encoder = Encoder(depth, width)
        self.decoder = Decoder(self.encoder.stage_channels, fpn_dim, ppm_dim, objects)

    def forward(
        self, x: torch.Tensor, size: tuple[int, int] = (56, 56)
    ) -> dict[str, torch.Tensor]:
        return self.decoder(self.encoder(x), size)


class ObjectPPM(nn.Module):
    """The same for pyramid pooling on a dilated encoder."""

    def __init__(
        self, depth: int = 50, width: int = 64, ppm_dim: int = 512, objects: int = 150
    ):
        super().__init__()
        self.encoder = Encoder(depth, width, dilated=True)
        self.decoder = ppm.Decoder(self.encoder.stage_channels, ppm_dim, objects)

    def forward(
        self, x: torch.Tensor, size: tuple[int, int] = (56, 56)
    ) -> dict[str, torch.Tensor]:
        return {"object": self.decoder(self.encoder(x), size)["color"]}
