"""The segmenters' ResNet in PyTorch: a stem of three convolutions, no classifier."""

import torch
from jdissect.converters.twins.resnet import _BLOCKS, Block
from torch import nn
from torch.nn import functional

STAGES = ("layer1", "layer2", "layer3", "layer4")


class Encoder(nn.Module):
    """Takes [batch, 3, height, width]; returns the maps of the four stages.

    Args:
      depth: 18, 34, 50, 101 or 152.
      width: planes of layer1.
      dilated: whether layer3 and layer4 dilate instead of striding, so that the last
        map has an eighth of the image's size.
    """

    def __init__(self, depth: int, width: int = 64, dilated: bool = False):
        super().__init__()
        kind, counts = _BLOCKS[depth]
        channels = 2 * width
        for i, (ins, outs) in enumerate(
            [(3, width), (width, width), (width, channels)]
        ):
            conv = nn.Conv2d(ins, outs, 3, 2 if i == 0 else 1, padding=1, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(outs))
        self.stage_channels = []
        for stage, (name, count) in enumerate(zip(STAGES, counts, strict=True)):
            planes = width * 2**stage
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(kind, channels, planes, stride))
                channels = planes if kind == "basic" else 4 * planes
            self.add_module(name, nn.Sequential(*blocks))
            self.stage_channels.append(channels)
        if dilated:
            _dilate(self.get_submodule("layer3"), 2)
            _dilate(self.get_submodule("layer4"), 4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        for i in (1, 2, 3):
            x = functional.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        x = functional.max_pool2d(x, 3, 2, padding=1)
        maps = []
        for name in STAGES:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps


def _dilate(stage: nn.Module, rate: int) -> None:
    """Removes the stride from a stage; its 3x3 convolutions get dilation `rate`.

    The one that had the stride gets half of that.
    """
    for conv in (m for m in stage.modules() if isinstance(m, nn.Conv2d)):
        had_stride = conv.stride == (2, 2)
        conv.stride = (1, 1)
        if conv.kernel_size == (3, 3):
            reach = rate // 2 if had_stride else rate
            conv.dilation = conv.padding = (reach, reach)


def conv_norm(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Returns a size-preserving convolution, batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes bilinearly with half-pixel centers, without antialiasing."""
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)
