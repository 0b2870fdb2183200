"""Cutout, Mixup, CutMix and SaliencyMix in PyTorch, a batch at a time.

As one would write them for a GPU today: no loop over images, random numbers drawn on
the device, nothing that waits for it. What is drawn is an argument of what uses it, so
that each operation can be compared with jdissect's on the same numbers. Images are
[batch, 3, height, width], in whichever memory format they come.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from benchmarks.pytorch.standard import constant

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WINDOWS = (12, 24, 48, 28, 56, 112)  # of saliency: half the sides, in pixels


class Mixture(NamedTuple):
    """A batch to train on: loss = weight CE(first) + (1 - weight) CE(second)."""

    images: torch.Tensor  # float32[batch, 3, height, width], normalized
    first: torch.Tensor  # int64[batch], of the image itself
    second: torch.Tensor  # int64[batch], of the image mixed into it
    weight: torch.Tensor  # float32[batch], of the first, in [0, 1]


def mix(
    recipe: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    salient: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Mixture:
    """Applies a recipe, drawing as jdissect's defaults do.

    One partner each; one lambda, and of CutMix one box, for the batch; SaliencyMix has
    a box an image, around the most salient pixel of its source.

    Args:
      recipe: one of `jdissect.augment.RECIPES`.
      images: float32[batch, 3, height, width] in [0, 1].
      labels: int64[batch].
      salient: `saliency`, or what was compiled of it.
    """
    batch, _, height, width = images.shape
    where = images.device
    normalized = normalize(images)
    whole = torch.ones(batch, device=where)
    if recipe == "none":
        return Mixture(normalized, labels, labels, whole)
    size = constant((height, width), where)
    if recipe == "cutout":
        centre = (torch.rand(batch, 2, device=where) * size).long()
        return Mixture(cutout(normalized, centre), labels, labels, whole)
    partner = torch.randperm(batch, device=where)
    share = torch.rand((), device=where)  # Beta(1, 1)
    second = labels[partner]
    if recipe == "mixup":
        mixed = mixup(normalized, partner, share)
        return Mixture(mixed, labels, second, share.expand(batch))
    if recipe == "cutmix":
        centre = (torch.rand(1, 2, device=where) * size).long().expand(batch, 2)
    else:
        pixels = (images * 255).round().clamp(0, 255).to(torch.uint8)
        centre = peaks((salient or saliency)(pixels))[partner]
    mixed, weight = paste(normalized, partner, share, centre)
    return Mixture(mixed, labels, second, weight)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """ImageNet's normalization of images in [0, 1]."""
    mean, std = (constant(part, images.device)[:, None, None] for part in (MEAN, STD))
    return (images - mean) / std


def cutout(images: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Zeros in a square of half of the shorter side around each centre."""
    side = min(images.shape[2:]) // 2
    corners = _corners(centre, torch.full_like(centre, side), images.shape[2:])
    return images.masked_fill(_inside(corners, images.shape[2:]), 0)


def mixup(
    images: torch.Tensor, partner: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """share * image + (1 - share) * its partner; one share, or one an image."""
    each = share.reshape(-1, 1, 1, 1)
    return torch.lerp(images[partner], images, each)


def paste(
    images: torch.Tensor,
    partner: torch.Tensor,
    share: torch.Tensor,
    centre: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of 1 - share of each partner into each image; clipped at the border.

    Args:
      images: float[batch, 3, height, width].
      partner: int[batch], whose box it is.
      share: lambda: one, or one an image.
      centre: int[batch, 2], row and column.

    Returns:
      The images, and the share of pixels that are still the image's own.
    """
    shape = images.shape[2:]
    size = constant(tuple(shape), images.device)
    cut = ((1 - share).sqrt().reshape(-1, 1) * size).int()
    corners = _corners(centre, cut, shape)
    mixed = torch.where(_inside(corners, shape), images[partner], images)
    area = (corners[:, 1] - corners[:, 0]).prod(1)
    total = shape[0] * shape[1]
    return mixed, (total - area) / total


def _corners(centre, cut, shape):
    """[image, first or end, row or column]."""
    corners = torch.stack((centre - cut // 2, centre + cut // 2), 1)
    return corners.clamp(min=0).minimum(constant(tuple(shape), corners.device).long())


def _inside(corners, shape):
    """bool[batch, 1, height, width]."""
    row, column = (
        (place >= corners[:, 0, axis, None]) & (place < corners[:, 1, axis, None])
        for axis, place in enumerate(
            torch.arange(size, device=corners.device) for size in shape
        )
    )
    return (row[:, :, None] & column[:, None, :])[:, None]


def saliency(pixels: torch.Tensor) -> torch.Tensor:
    """OpenCV's fine-grained saliency of RGB images (Montabone & Soto, 2010).

    Equal to OpenCV's as long as an integral image stays below 2^24, where float32 is
    exact, as at 224 x 224 and below.

    Args:
      pixels: uint8[batch, 3, height, width].

    Returns:
      uint8[batch, height, width]; zero where nothing stands out.
    """
    red, green, blue = pixels.int().unbind(1)
    grey = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15
    for _ in range(2):
        padded = functional.pad(grey[:, None].float(), (1, 1, 1, 1), mode="reflect")
        padded = padded[:, 0].int()
        tall = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        grey = (tall[:, :, :-2] + 2 * tall[:, :, 1:-1] + tall[:, :, 2:] + 8) >> 4
    height, width = grey.shape[1:]
    integral = functional.pad(_sums(_sums(grey, 1), 2), (1, 0, 1, 0)).float()
    # With the edges repeated a clipped window is a slice like any other.
    around = max(WINDOWS)
    integral = functional.pad(integral, 4 * (around,), mode="replicate")

    def shifted(down, right):
        rows = integral.narrow(1, around + down, height)
        return rows.narrow(2, around + right, width)

    centre = grey.float()
    on, off = torch.zeros_like(centre), torch.zeros_like(centre)
    for half in WINDOWS:
        before, after = 1 - half, 1 + half
        total = shifted(after, after) + shifted(before, before)  # as OpenCV rounds
        total = total - shifted(after, before) - shifted(before, after)
        tall, wide = (_extent(size, half, grey.device) for size in (height, width))
        area = tall[:, None] * wide
        contrast = (centre - (total - centre) / (area - 1)).trunc()
        on += contrast.clamp(min=0)
        off -= contrast.clamp(max=0)
    on, off = _stretch(on), _stretch(off)
    most = torch.maximum(on.amax((1, 2), True), off.amax((1, 2), True)).clamp(min=1)
    both = 255 * ((on + off) / most).double()
    return (both.int() & 255).to(torch.uint8)


def _sums(values, axis):
    return values.cumsum(axis, dtype=torch.int32)


def _extent(size, half, device):
    """How many of an axis's pixels each place's window has, clipped."""
    place = torch.arange(size, device=device)
    return (place + half + 1).clamp(max=size) - (place - half + 1).clamp(min=0)


def _stretch(contrast):
    """Scaled so that the maximum is 255, and truncated."""
    most = contrast.amax((1, 2), True).clamp(min=1)
    return (255 * (contrast / most).double()).trunc().float()


def peaks(salient: torch.Tensor) -> torch.Tensor:
    """int64[batch, 2]: row and column of each map's first largest value."""
    where = salient.flatten(1).int().argmax(1)
    width = salient.shape[2]
    return torch.stack((where // width, where % width), 1)
