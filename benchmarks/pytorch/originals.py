"""Augmentation as CutMix-PyTorch and SaliencyMix have it: on the CPU, image by image.

What their loaders do with an image: a crop and a flip of a Pillow image, then a tensor
of [3, height, width] that jitter, lighting and normalization change one after the
other. Mixing works in place on the batch, on whichever device it is. Cutout and Mixup
follow their authors' published code, since neither repository holds them.

One thing is not followed: the saliency of SaliencyMix is that of 8-bit pixels and, if
not asked otherwise, of every source image, as in the paper and in jdissect.
"""

import math

import numpy as np
import torch
from PIL import Image

from benchmarks.pytorch.mixing import MEAN, STD, WINDOWS, Mixture
from benchmarks.pytorch.standard import (
    EIGENVALUES,
    EIGENVECTORS,
    GREY,
    JITTER,
    LIGHTING,
)

try:
    from cv2 import saliency as opencv  # in OpenCV's contributed modules only
except ImportError:
    opencv = None

SALIENCY = "NumPy" if opencv is None else "OpenCV"


def load(pixels: np.ndarray, side: int, rng: np.random.Generator) -> torch.Tensor:
    """One image as the loader gives it.

    Args:
      pixels: uint8[height, width, 3], RGB.
      side: side of the result, in pixels.
      rng: generator of the worker.

    Returns:
      float32[3, side, side], normalized.
    """
    image = Image.fromarray(pixels)
    top, left, height, width = _draw_crop(*pixels.shape[:2], rng)
    box = (left, top, left + width, top + height)
    image = image.crop(box).resize((side, side), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous() / 255
    for kind in rng.permutation(3):
        tensor = _jitter(tensor, kind, rng.uniform(-JITTER, JITTER))
    alpha = torch.from_numpy(rng.normal(0, LIGHTING, 3).astype(np.float32))
    gain = (torch.tensor(EIGENVECTORS) * alpha * torch.tensor(EIGENVALUES)).sum(1)
    tensor = tensor + gain[:, None, None]
    mean, std = (torch.tensor(part)[:, None, None] for part in (MEAN, STD))
    return tensor.sub_(mean).div_(std)


def _draw_crop(height, width, rng):
    """Top, left, height and width; torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            top = rng.integers(0, height - tall + 1)
            return top, rng.integers(0, width - wide + 1), tall, wide
    tall = min(height, round(width * 4 / 3))
    wide = min(width, round(height * 4 / 3))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _jitter(image, kind, amount):
    """Towards black, the mean grey or the grey image by `amount`; not clipped."""
    if kind == 0:
        other = torch.zeros_like(image)
    else:
        red, green, blue = image
        other = GREY[0] * red + GREY[1] * green + GREY[2] * blue
        other = other.expand_as(image)
        if kind == 1:
            other = torch.full_like(image, other.mean().item())
    return torch.lerp(image, other, amount)


def mix(
    recipe: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    rng: np.random.Generator,
    one_box: bool = False,
) -> Mixture:
    """Applies a recipe to a normalized batch, which it may change.

    Args:
      recipe: one of `jdissect.augment.RECIPES`.
      images: float32[batch, 3, height, width].
      labels: int64[batch].
      rng: generator of the training process.
      one_box: SaliencyMix has one box a batch, around the peak of the first source
        image, as in its published code.
    """
    batch, _, height, width = images.shape
    if recipe == "none":
        return Mixture(images, labels, labels, torch.ones(batch))
    if recipe == "cutout":
        mask = np.ones((batch, 1, height, width), np.float32)
        half = min(height, width) // 4
        for one in mask:
            y, x = rng.integers(height), rng.integers(width)
            one[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        images *= torch.from_numpy(mask).to(images.device)
        return Mixture(images, labels, labels, torch.ones(batch))
    share = rng.beta(1, 1)
    partner = torch.from_numpy(rng.permutation(batch)).to(images.device)
    second = labels[partner]
    if recipe == "mixup":
        images = share * images + (1 - share) * images[partner]
        return Mixture(images, labels, second, torch.full((batch,), share))
    cut = math.sqrt(1 - share)
    tall, wide = int(height * cut), int(width * cut)
    if recipe == "cutmix" or one_box:
        if recipe == "cutmix":
            y, x = rng.integers(height), rng.integers(width)
        else:
            y, x = peak(images[partner[0]])
        top, left, low, right = box(y, x, tall, wide, height, width)
        images[:, :, top:low, left:right] = images[partner, :, top:low, left:right]
        weights = [1 - (low - top) * (right - left) / (height * width)] * batch
    else:
        sources, weights = images[partner], []
        for image, source in zip(images, sources, strict=True):
            top, left, low, right = box(*peak(source), tall, wide, height, width)
            image[:, top:low, left:right] = source[:, top:low, left:right]
            weights.append(1 - (low - top) * (right - left) / (height * width))
    weight = torch.tensor(weights, dtype=torch.float32)
    return Mixture(images, labels, second, weight)


def box(y, x, tall, wide, height, width):
    """Top, left, and the ends behind, of a box around (y, x), clipped."""
    return (
        max(y - tall // 2, 0),
        max(x - wide // 2, 0),
        min(y + tall // 2, height),
        min(x + wide // 2, width),
    )


def peak(image: torch.Tensor) -> tuple[int, int]:
    """Row and column of the most salient pixel of a normalized image."""
    mean, std = (np.float32(part) for part in (MEAN, STD))
    values = image.cpu().numpy().transpose(1, 2, 0) * std + mean
    pixels = np.rint(values * 255).clip(0, 255).astype(np.uint8)
    found = salient(pixels)
    return np.unravel_index(found.argmax(), found.shape)


def salient(pixels: np.ndarray) -> np.ndarray:
    """uint8[height, width]: the saliency of uint8[height, width, 3], by OpenCV."""
    if opencv is None:
        return salient_by_numpy(pixels)
    detector = opencv.StaticSaliencyFineGrained_create()
    _, found = detector.computeSaliency(np.ascontiguousarray(pixels[..., ::-1]))
    return np.rint(found * 255).astype(np.uint8)


def salient_by_numpy(pixels: np.ndarray) -> np.ndarray:
    """The same where there is no OpenCV, of images up to 256 x 256."""
    grey = (pixels @ np.array((9798, 19235, 3735)) + (1 << 14)) >> 15
    height, width = grey.shape
    for _ in range(2):
        padded = np.pad(grey, 1, mode="reflect")
        tall = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        grey = (tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:] + 8) >> 4
    integral = np.pad(grey.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.float32)
    grey = grey.astype(np.float32)
    on, off = np.zeros((2, height, width), np.float32)
    y, x = np.arange(height), np.arange(width)
    for half in WINDOWS:
        top, low = np.maximum(y - half + 1, 0), np.minimum(y + half + 1, height)
        left, right = np.maximum(x - half + 1, 0), np.minimum(x + half + 1, width)
        above, below = integral[top], integral[low]
        total = below[:, right] + above[:, left] - below[:, left] - above[:, right]
        area = np.outer(low - top, right - left).astype(np.float32)
        contrast = np.trunc(grey - (total - grey) / (area - 1))
        on += np.maximum(contrast, 0)
        off -= np.minimum(contrast, 0)
    on, off = (
        np.trunc(255 * (part / max(part.max(), 1)).astype(np.float64))
        for part in (on, off)
    )
    most = np.float32(max(on.max(), off.max(), 1))
    both = 255 * ((on + off).astype(np.float32) / most).astype(np.float64)
    return both.astype(np.int64).astype(np.uint8)
