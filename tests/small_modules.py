"""Small PyTorch modules, for tests of what converts any module."""

import torch
from torch import nn


def cnn() -> nn.Module:
    """Takes images of any size; gives five logits."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out, self.proj = nn.Identity(), nn.Linear(width, width)

    def forward(self, x):
        batch, count, width = x.shape
        parts = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
        each = self.out(weights.softmax(-1) @ value)
        return self.proj(each.transpose(1, 2).reshape(batch, count, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with two prefix tokens, for images of 32x32."""

    def __init__(self, width: int = 12, heads: int = 3, prefix: int = 2):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.position = nn.Parameter(torch.randn(1, 16 + prefix, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(2)])
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        prefix = self.prefix.expand(x.shape[0], -1, -1)
        x = torch.cat([prefix, x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def vit() -> nn.Module:
    torch.manual_seed(0)
    return ViT()


class Generator(nn.Module):
    """Makes images of 16x16, -1 to 1, of latents of 6 numbers.

    Args:
      maps: whether latents are [batch, 6, 1, 1].
      channels: number of the images' channels.
    """

    def __init__(self, maps: bool = False, channels: int = 3):
        super().__init__()
        first = nn.ConvTranspose2d(6, 10, 4) if maps else nn.Linear(6, 160)
        self.first = first
        self.up = nn.Sequential(
            nn.ConvTranspose2d(10, 9, 4, 2, 1), nn.BatchNorm2d(9), nn.LeakyReLU(0.2)
        )
        self.last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(9, 7, 3, 1, 1))
        self.image = nn.Conv2d(7, channels, 1)

    def forward(self, z):
        x = self.first(z).reshape(-1, 10, 4, 4)
        return torch.tanh(3 * self.image(self.last(self.up(x))))


def generator() -> nn.Module:
    torch.manual_seed(0)
    return Generator()


def vector() -> nn.Module:
    """Takes vectors of 6 numbers, and returns no image."""
    return nn.Sequential(nn.Linear(6, 4))
