"""Builds the PyTorch networks of `benchmarks.any_network`, with random weights.

From timm and transformers, and two of its own: a U-Net and the generator of a GAN.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.support import torchvision_stub


@dataclasses.dataclass(frozen=True)
class Network:
    """One network to compare.

    Attributes:
      build: returns the module.
      layers: dotted names of the layers to compare.
      side: side of the images in pixels; 0: the input is a vector of 32 numbers.
    """

    build: Callable
    layers: tuple[str, ...]
    side: int = 224


class Twice(nn.Sequential):
    """Two 3x3 convolutions with batch normalization and ReLU in place."""

    def __init__(self, inner: int, units: int):
        parts: list[nn.Module] = []
        for channels in (inner, units):
            parts += [nn.Conv2d(channels, units, 3, padding=1, bias=False)]
            parts += [nn.BatchNorm2d(units), nn.ReLU(inplace=True)]
        super().__init__(*parts)


class UNet(nn.Module):
    """A U-Net of three levels (Ronneberger et al., MICCAI 2015)."""

    def __init__(self, width: int = 32, classes: int = 5):
        super().__init__()
        self.down1 = Twice(3, width)
        self.down2 = Twice(width, 2 * width)
        self.bottom = Twice(2 * width, 4 * width)
        self.pool = nn.ModuleList([nn.MaxPool2d(2), nn.MaxPool2d(2)])
        self.raise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = Twice(4 * width, 2 * width)
        self.raise1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.up1 = Twice(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        first = self.down1(images)
        second = self.down2(self.pool[0](first))
        bottom = self.bottom(self.pool[1](second))
        second = self.up2(torch.cat([second, self.raise2(bottom)], 1))
        return self.head(self.up1(torch.cat([first, self.raise1(second)], 1)))


class Generator(nn.Module):
    """The generator of a DCGAN (Radford et al., ICLR 2016): 32 numbers to an image."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.first = nn.Linear(32, 4 * width * 16)
        blocks: list[nn.Module] = []
        for inner, units in ((4 * width, 2 * width), (2 * width, width)):
            blocks.append(
                nn.Sequential(
                    nn.ConvTranspose2d(inner, units, 4, stride=2, padding=1),
                    nn.BatchNorm2d(units),
                    nn.LeakyReLU(0.2, inplace=True),
                )
            )
        self.blocks = nn.ModuleList(blocks)
        self.image = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, noise):
        maps = self.first(noise).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            maps = block(maps)
        return torch.tanh(self.image(maps))


def _timm(name: str, **options) -> Callable:
    def build():
        with torchvision_stub.present():
            import timm

        return timm.create_model(name, pretrained=False, **options)

    return build


def _clip():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig())


def _dinov2():
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(
        Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518)
    )


def tiny_clip():
    """CLIP's vision tower with two narrow blocks."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    return CLIPVisionModel(
        CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=24, patch_size=8)
    )


def tiny_dinov2():
    """DINOv2 with two narrow blocks, for positions of a larger image."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    return Dinov2Model(Dinov2Config(**sizes, image_size=40, patch_size=8))


_VIT = ("patch_embed", "blocks.0", "blocks.5.mlp.act", "blocks.11", "norm")

NETWORKS = {
    "timm resnet50": Network(
        _timm("resnet50"), ("conv1", "layer1", "layer2", "layer3.0", "layer4")
    ),
    "timm vit_small_patch16_224": Network(_timm("vit_small_patch16_224"), _VIT),
    "timm vit_small_patch14_reg4_dinov2": Network(
        _timm("vit_small_patch14_reg4_dinov2", img_size=98), _VIT, 98
    ),
    "timm swin_tiny_patch4_window7_224": Network(
        _timm("swin_tiny_patch4_window7_224"),
        ("patch_embed", "layers.0", "layers.1.blocks.1", "layers.2", "layers.3"),
    ),
    "timm convnext_tiny": Network(
        _timm("convnext_tiny"),
        ("stem", "stages.0", "stages.1", "stages.2.blocks.4.mlp.act", "stages.3"),
    ),
    "timm efficientnet_b0": Network(
        _timm("efficientnet_b0"),
        ("conv_stem", "blocks.1", "blocks.3.1.se", "blocks.5", "conv_head"),
    ),
    "timm mobilenetv3_large_100": Network(
        _timm("mobilenetv3_large_100"),
        ("conv_stem", "blocks.1", "blocks.3", "blocks.5", "blocks.6"),
    ),
    "timm densenet121": Network(
        _timm("densenet121"),
        (
            "features.pool0",
            *(f"features.denseblock{number}" for number in (1, 2, 3, 4)),
        ),
    ),
    "timm vgg16_bn": Network(
        _timm("vgg16_bn"), ("features.0", "features.13", "features.26", "features.42")
    ),
    "timm regnety_008": Network(
        _timm("regnety_008"), ("stem", "s1", "s2", "s3.b2.se", "s4")
    ),
    "transformers CLIPVisionModel (ViT-B/32)": Network(
        _clip, ("encoder.layers.0", "encoder.layers.5.mlp.fc1", "encoder.layers.11")
    ),
    "transformers Dinov2Model (small)": Network(
        _dinov2, ("embeddings", "encoder.layer.0", "encoder.layer.11", "layernorm")
    ),
    "a U-Net": Network(UNet, ("down1", "bottom", "raise2", "up2", "up1", "head"), 96),
    "a DCGAN generator": Network(
        Generator, ("first", "blocks.0", "blocks.1", "image"), 0
    ),
}


def example(network: Network, count: int = 2) -> torch.Tensor:
    """Returns random input."""
    draw = torch.Generator().manual_seed(1)
    shape = (3, network.side, network.side) if network.side else (32,)
    return torch.randn(count, *shape, generator=draw)
