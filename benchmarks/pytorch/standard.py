"""Random resized crop, flip, jitter and lighting in PyTorch, a batch at a time.

The strong form of what `originals` does an image at a time: on the device, by
products of matrices.
"""

import functools
import math

import torch
from torch.nn import functional

GREY = (0.299, 0.587, 0.114)  # of red, green and blue
# Of ImageNet's colours: eigenvalues, and eigenvectors with a row a channel.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
JITTER, LIGHTING = 0.4, 0.1


@functools.cache
def constant(values: tuple, device: torch.device) -> torch.Tensor:
    """float32 on a device, copied there once: a copy from the host waits for it."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def standard(pixels: torch.Tensor, sizes: torch.Tensor, side: int) -> torch.Tensor:
    """Random resized crop, flip, jitter and lighting.

    Args:
      pixels: uint8[batch, height, width, 3], each image in its canvas's top left.
      sizes: int[batch, 2], height and width of each.
      side: side of the result, in pixels.

    Returns:
      float32[batch, 3, side, side], in [0, 1] but for jitter's excess.
    """
    batch, where = len(pixels), pixels.device
    flips = torch.rand(batch, device=where) < 0.5
    images = crop(pixels, draw_crops(sizes), flips, side)
    order = torch.rand(batch, 3, device=where).argsort(1)
    amounts = JITTER * (2 * torch.rand(batch, 3, device=where) - 1)
    alpha = LIGHTING * torch.randn(batch, 3, device=where)
    return colours(images, order, amounts, alpha)


def draw_crops(sizes: torch.Tensor, tries: int = 10) -> torch.Tensor:
    """int64[batch, 4]: top, left, height, width, as torchvision's RandomResizedCrop."""
    batch, where = len(sizes), sizes.device
    full = sizes.float()
    area = torch.empty(batch, tries, device=where).uniform_(0.08, 1)
    area = area * full.prod(1, keepdim=True)
    bound = math.log(4 / 3)
    aspect = torch.empty(batch, tries, device=where).uniform_(-bound, bound).exp()
    tried = torch.stack(((area / aspect).sqrt(), (area * aspect).sqrt()), 2).round()
    fits = ((tried > 0) & (tried <= full[:, None])).all(2)
    first = fits.int().argmax(1)[:, None, None].expand(batch, 1, 2)
    # If none fits: the central crop, as large as the bounds of the ratio allow.
    central = torch.minimum(full, (full.flip(1) * (4 / 3)).round())
    found = fits.any(1, keepdim=True)
    taken = torch.where(found, tried.gather(1, first)[:, 0], central)
    room = full - taken
    anywhere = (torch.rand(batch, 2, device=where) * (room + 1)).floor()
    corner = torch.where(found, anywhere, (room / 2).floor())
    return torch.cat((corner, taken), 1).long()


def crop(
    pixels: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, side: int
) -> torch.Tensor:
    """Boxes at side x side, antialiased as PIL's BILINEAR, mirrored where `flips`.

    On a CPU an image at a time, by PyTorch's own resizing of 8-bit pixels, which rounds
    to 8 bits; elsewhere all at once, by `crop_at_once`, since there a loop would wait
    for the boxes. `grid_sample` is simpler, but aliases where it makes images smaller.

    Args:
      pixels: uint8[batch, height, width, 3].
      boxes: int[batch, 4], top, left, height, width.
      flips: bool[batch].
      side: side of the result, in pixels.

    Returns:
      float32[batch, 3, side, side] of [0, 1].
    """
    if pixels.device.type != "cpu":
        return crop_at_once(pixels, boxes, flips, side)
    crops = []
    for image, box, flip in zip(pixels, boxes.tolist(), flips.tolist(), strict=True):
        top, left, height, width = box
        part = image[None, top : top + height, left : left + width].permute(0, 3, 1, 2)
        part = functional.interpolate(
            part, (side, side), mode="bilinear", antialias=True
        )
        crops.append(part.flip(3) if flip else part)
    return torch.cat(crops).float().div_(255)


def crop_at_once(
    pixels: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, side: int
) -> torch.Tensor:
    """As `crop`, never rounded: a product with a matrix an axis."""
    batch, height, width, channels = pixels.shape
    rows = _triangles(boxes[:, 0], boxes[:, 2], side, height)
    columns = _triangles(boxes[:, 1], boxes[:, 3], side, width)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns) / 255
    narrow = torch.bmm(rows, pixels.flatten(2).float())
    planes = narrow.view(batch, side, width, channels).permute(0, 3, 1, 2)
    # A product of large matrices: with colours last it would have three columns.
    images = torch.bmm(planes.reshape(batch, channels * side, width), columns.mT)
    return images.view(batch, channels, side, side)


def _triangles(start, length, side, size):
    """float32[batch, side, size]: weights of `size` pixels in each of `side`."""
    place = torch.arange(size, device=start.device) + 0.5 - start[:, None, None]
    step = (length / side)[:, None, None]
    centre = (torch.arange(side, device=start.device) + 0.5)[:, None] * step
    weights = (1 - (place - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((place > 0) & (place < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def colours(
    images: torch.Tensor,
    order: torch.Tensor,
    amounts: torch.Tensor,
    alpha: torch.Tensor,
) -> torch.Tensor:
    """Jitter and lighting as one affine map of colours an image.

    Brightness, contrast and saturation are affine in a pixel's colour once an image's
    mean colour is known, and so is what they do one after the other.

    Args:
      images: float32[batch, 3, height, width].
      order: int[batch, 3], which comes first, second, third: 0 is brightness,
        1 contrast, 2 saturation.
      amounts: float32[batch, 3], of each in this order.
      alpha: float32[batch, 3], of lighting.

    Returns:
      As `images`.
    """
    grey = constant(GREY, images.device)
    mean = images.mean((2, 3))[:, :, None]
    matrix = torch.eye(3, device=images.device).expand(len(images), 3, 3)
    shift = torch.zeros_like(mean)
    for kind, amount in zip(order.unbind(1), amounts.unbind(1), strict=True):
        kind, amount = kind[:, None, None], amount[:, None, None]
        level = grey @ (matrix @ mean + shift)  # the mean grey
        saturated, moved = (grey @ part for part in (matrix, shift))
        matrix = (1 - amount) * matrix + amount * (kind == 2) * saturated[:, None]
        shift = (1 - amount) * shift + amount * (
            (kind == 1) * level[:, None] + (kind == 2) * moved[:, None]
        )
    axes = constant(EIGENVECTORS, images.device) * constant(EIGENVALUES, images.device)
    shift = shift[:, :, 0] + alpha @ axes.T
    flat = images.permute(0, 2, 3, 1).flatten(1, 2)
    result = torch.baddbmm(shift[:, None], flat, matrix.mT)
    return result.view(images.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
