"""ResNet-18/34/50/101/152 in PyTorch, with the tensor names of torchvision's files."""

import torch
from torch import nn
from torch.nn import functional

_BLOCKS = {
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
    101: ("bottleneck", [3, 4, 23, 3]),
    152: ("bottleneck", [3, 8, 36, 3]),
}


class Block(nn.Module):
    """A basic block (3x3, 3x3) or a bottleneck (1x1, 3x3, 1x1).

    `inner` (None: planes) and `groups` apply to a bottleneck's 3x3 convolution.
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        planes: int,
        stride: int,
        inner: int | None = None,
        groups: int = 1,
    ):
        super().__init__()
        inner = inner or planes
        if kind == "basic":
            # kernel size, inputs, outputs, stride, groups
            convs = [(3, inputs, planes, stride, 1), (3, planes, planes, 1, 1)]
        else:
            convs = [
                (1, inputs, inner, 1, 1),
                (3, inner, inner, stride, groups),
                (1, inner, 4 * planes, 1, 1),
            ]
        self.count = len(convs)
        for i, (size, ins, outs, step, parts) in enumerate(convs, 1):
            conv = nn.Conv2d(
                ins, outs, size, step, padding=size // 2, groups=parts, bias=False
            )
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outs))
        outputs = convs[-1][2]
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            if i < self.count:
                x = functional.relu(x)
        return functional.relu(x + shortcut)


class ResNet(nn.Module):
    """Takes images in NCHW; returns logits and {endpoint: map in NCHW}.

    Args: see `jdissect.models.resnet.ResNet`. Without classes there are no logits.
    """

    def __init__(
        self,
        depth: int,
        width: int = 64,
        classes: int = 1000,
        in_channels: int = 3,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        groups: int = 1,
        width_per_group: int = 0,
    ):
        super().__init__()
        kind, counts = _BLOCKS[depth]
        self.conv1 = nn.Conv2d(
            in_channels,
            width,
            stem_kernel,
            stem_stride,
            padding=stem_kernel // 2,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.stem_pool = stem_pool
        channels = width
        for stage, count in enumerate(counts, 1):
            planes = width * 2 ** (stage - 1)
            blocks = []
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                inner = width_per_group * groups * 2 ** (stage - 1)
                blocks.append(Block(kind, channels, planes, stride, inner, groups))
                channels = planes if kind == "basic" else 4 * planes
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes) if classes else None

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        x = functional.relu(self.bn1(self.conv1(x)))
        if self.stem_pool:
            x = functional.max_pool2d(x, 3, 2, padding=1)
        endpoints = {"stem": x}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, name)(x)
            endpoints[name] = x
        return None if self.fc is None else self.fc(x.mean((2, 3))), endpoints
