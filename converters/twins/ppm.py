"""The color segmenter in PyTorch, with the tensor names of the published files."""

import torch
from jdissect.converters.twins.encoder import Encoder, conv_norm, resize
from torch import nn

SCALES = (1, 2, 3, 6)


class Decoder(nn.Module):
    """Pyramid pooling of the last map, and an auxiliary head that never runs."""

    def __init__(self, channels: list[int], ppm_dim: int, classes: int):
        super().__init__()
        top, auxiliary = channels[3], channels[2]
        self.ppm = nn.ModuleList(
            [
                nn.Sequential(nn.AdaptiveAvgPool2d(bins), *conv_norm(top, ppm_dim, 1))
                for bins in SCALES
            ]
        )
        self.cbr_deepsup = conv_norm(auxiliary, auxiliary // 2, 3)
        self.conv_last = nn.Sequential(
            *conv_norm(top + len(SCALES) * ppm_dim, ppm_dim, 3),
            nn.Dropout2d(0.1),
            nn.Conv2d(ppm_dim, classes, 1),
        )
        self.conv_last_deepsup = nn.Conv2d(auxiliary // 2, classes, 1)

    def forward(
        self, maps: list[torch.Tensor], size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        top = maps[3]
        pooled = [resize(branch(top), top.shape[2:]) for branch in self.ppm]
        scores = self.conv_last(torch.cat([top, *pooled], 1))
        return {"color": resize(scores, size)}


class PPM(nn.Module):
    """Takes normalized images [batch, 3, height, width]; returns {'color': scores}.

    Scores are before softmax, [batch, classes, *size].
    """

    def __init__(
        self, depth: int = 18, width: int = 64, ppm_dim: int = 512, classes: int = 12
    ):
        super().__init__()
        self.encoder = Encoder(depth, width, dilated=True)
        self.decoder = Decoder(self.encoder.stage_channels, ppm_dim, classes)

    def forward(
        self, x: torch.Tensor, size: tuple[int, int] = (56, 56)
    ) -> dict[str, torch.Tensor]:
        return self.decoder(self.encoder(x), size)
