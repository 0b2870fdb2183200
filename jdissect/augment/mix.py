"""Mixed-sample augmentation: Cutout, Mixup, CutMix and SaliencyMix.

Cutout (DeVries & Taylor, 2017) blanks a square of an image. Mixup (Zhang et al., 2018)
adds two images with weights lambda and 1 - lambda. CutMix (Yun et al., 2019) pastes a
box of one image, the source, into another, and SaliencyMix (Uddin et al., 2021) places
that box where the source is most salient. Labels are mixed like the pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdissect.base.errors import UserError
from jdissect.ops import saliency

RECIPES = ("none", "cutout", "mixup", "cutmix", "saliencymix")


class Mixture(NamedTuple):
    """A training batch: loss = weight CE(first) + (1 - weight) CE(second)."""

    images: Float[Array, "batch height width 3"]  # normalized
    first: Int[Array, " batch"]  # label of the image itself
    second: Int[Array, " batch"]  # label of the image mixed into it
    weight: Float[Array, " batch"]  # weight of `first`, in [0, 1]


def mix(
    recipe: str,
    key: Key[Array, ""],
    images: Float[Array, "batch height width 3"],
    labels: Int[Array, " batch"],
    *,
    alpha: float = 1.0,
    group: int = 0,
    one_box_per_batch: bool | None = None,
    normalize: Callable[[Array], Array],
    cutout_side: int | None = None,
) -> Mixture:
    """Applies a recipe to a batch; jittable with all but key, images, labels static.

    Args:
      recipe: one of RECIPES.
      key: determines partners, lambda and boxes.
      images: RGB in [0, 1], not normalized; values outside are allowed.
      labels: class numbers.
      alpha: lambda ~ Beta(alpha, alpha).
      group: partners are drawn from the same `group` consecutive images, so that
        devices with whole groups exchange nothing; 0: from the whole batch.
      one_box_per_batch: True: one lambda and one box (for SaliencyMix around the peak
        of the first source image) per batch, as in the published code. False: one per
        image; for SaliencyMix one box per image with one lambda. None: True for mixup
        and cutmix, False for saliencymix. Cutout always has one square per image.
      normalize: maps images to the network's input; Cutout's zeros come after it.
      cutout_side: side of Cutout's square in pixels; None is half of the image's
        shorter side.

    Returns:
      The mixed batch. The weight is the share of pixels that remain of the image itself
      for recipes that paste boxes, and lambda for Mixup; without partner (none, cutout)
      the second label is the first, and the weight 1.

    Raises:
      UserError: the recipe is unknown, alpha is not above 0, or the group does not
        divide the batch.
    """
    if recipe not in RECIPES:
        raise UserError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    if not alpha > 0:
        raise UserError(f"alpha is {alpha}; it must be above 0")
    batch, height, width, _ = images.shape
    shape = (height, width)
    if group < 0 or batch % (group or batch):
        raise UserError(f"group is {group}; it must divide the batch of {batch} images")
    labels = labels.astype(jnp.int32)
    normalized = normalize(images)
    alone = Mixture(normalized, labels, labels, jnp.ones(batch, jnp.float32))
    if recipe == "none":
        return alone

    once = recipe != "saliencymix" if one_box_per_batch is None else one_box_per_batch
    if recipe == "cutout":
        side = min(shape) // 2 if cutout_side is None else cutout_side
        centres = _uniform_centres(key, batch, shape)
        square = _box(centres, jnp.full((batch, 2), side), shape)
        return alone._replace(images=jnp.where(_inside(square, shape), 0, normalized))

    partner, share, centres = _draw(
        recipe, key, batch, shape, alpha=alpha, group=group, once=once
    )
    sources = _exchange(normalized, partner, group)
    second = _exchange(labels, partner, group)
    if recipe == "mixup":
        each = share[:, None, None, None]
        return Mixture(each * normalized + (1 - each) * sources, labels, second, share)
    if recipe == "saliencymix":
        centres = _source_peaks(images, partner, group, once)
    box = _box(centres, _cut(share, shape), shape)
    mixed = jnp.where(_inside(box, shape), sources, normalized)
    return Mixture(mixed, labels, second, _remaining(box, shape))


class _Draws(NamedTuple):
    """A recipe's random draws; if drawn once per batch, all rows are equal."""

    partner: Int[Array, " batch"]  # the source's position in the image's group
    share: Float[Array, " batch"]  # lambda
    centre: Int[Array, "batch 2"]  # row and column, uniform over the pixels


def _draw(
    recipe: str,
    key: Key[Array, ""],
    batch: int,
    shape: tuple[int, int],
    *,
    alpha: float,
    group: int,
    once: bool,
) -> _Draws:
    key_partner, key_share, key_centre = jax.random.split(key, 3)
    group = group or batch
    places = jnp.broadcast_to(jnp.arange(group), (batch // group, group))
    partner = jax.random.permutation(key_partner, places, axis=1, independent=True)
    count = 1 if once or recipe == "saliencymix" else batch
    if alpha == 1:  # the same distribution, without beta's loop
        share = jax.random.uniform(key_share, (count,))
    else:
        share = jax.random.beta(key_share, alpha, alpha, (count,))
    centre = _uniform_centres(key_centre, 1 if once else batch, shape)
    return _Draws(
        partner.reshape(batch),
        jnp.broadcast_to(share, (batch,)),
        jnp.broadcast_to(centre, (batch, 2)),
    )


def _uniform_centres(
    key: Key[Array, ""], count: int, shape: tuple[int, int]
) -> Int[Array, "count 2"]:
    return jax.random.randint(key, (count, 2), 0, jnp.array(shape))


def _exchange(values: Array, partner: Int[Array, " batch"], group: int) -> Array:
    """Returns values[i] of i's partner; nothing leaves a group."""
    group = group or len(values)
    grouped = values.reshape(-1, group, *values.shape[1:])
    taken = jax.vmap(lambda some, places: some[places])(
        grouped, partner.reshape(-1, group)
    )
    return taken.reshape(values.shape)


def _source_peaks(
    images: Float[Array, "batch height width 3"],
    partner: Int[Array, " batch"],
    group: int,
    once: bool,
) -> Int[Array, "batch 2"]:
    """Returns row and column of the most salient pixel of each image's source."""
    if once:
        first = jax.lax.dynamic_slice_in_dim(images, partner[0], 1)
        return jnp.broadcast_to(_peaks(first), (len(images), 2))
    return _exchange(_peaks(images), partner, group)


def _peaks(images: Float[Array, "batch height width 3"]) -> Int[Array, "batch 2"]:
    """Returns row and column of the most salient pixel, the first in raster order."""
    pixels = jnp.clip(jnp.round(255 * images), 0, 255).astype(jnp.uint8)
    salient = saliency.fine_grained(pixels)
    where = jnp.argmax(salient.reshape(len(images), -1), axis=1)
    width = images.shape[2]
    return jnp.stack([where // width, where % width], axis=1)


def _cut(
    share: Float[Array, " batch"], shape: tuple[int, int]
) -> Int[Array, "batch 2"]:
    """Returns height and width of a box of 1 - lambda of the image, truncated."""
    sides = jnp.sqrt(1 - share)[:, None] * jnp.array(shape, jnp.float32)
    return sides.astype(jnp.int32)


def _box(
    centre: Int[Array, "batch 2"],
    cut: Int[Array, "batch 2"],
    shape: tuple[int, int],
) -> Int[Array, "batch 2 2"]:
    """Returns [image, first or end, row or column]; odd sides lose 1, as published."""
    corners = jnp.stack([centre - cut // 2, centre + cut // 2], axis=1)
    return jnp.clip(corners, 0, jnp.array(shape))


def _inside(
    box: Int[Array, "batch 2 2"], shape: tuple[int, int]
) -> Bool[Array, "batch height width 1"]:
    row, column = (
        (jnp.arange(size) >= box[:, 0, axis, None])
        & (jnp.arange(size) < box[:, 1, axis, None])
        for axis, size in enumerate(shape)
    )
    return row[:, :, None, None] & column[:, None, :, None]


def _remaining(
    box: Int[Array, "batch 2 2"], shape: tuple[int, int]
) -> Float[Array, " batch"]:
    """Returns the share of pixels outside the box: an integer quotient rounded once."""
    total = shape[0] * shape[1]
    area = (box[:, 1] - box[:, 0]).prod(axis=1)
    # The compiler would replace division by a constant with multiplication by its
    # rounded reciprocal. It cannot know that no area is negative.
    divisor = jnp.where(area < 0, 1, total)
    return (total - area).astype(jnp.float32) / divisor.astype(jnp.float32)
