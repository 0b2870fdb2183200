"""What a network loses without some of its units.

A unit is *zeroed*: its feature map is 0 everywhere. Where nothing but the spatial mean
and a linear layer follow, the logits without a set S of units are

    logits - sum_{u in S} mean(f_u) W[u],

so that one forward pass that keeps mean(f) answers for every set of units.
Source: Bau et al. 2020, "Understanding the role of individual units in a deep neural
network", section 3 (units zeroed, and their effect on the accuracy of each class).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

RESAMPLES = 2000
DRAWS = 200  # of random sets of units
_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Change:
    """Of a share of images, in percentage points.

    Attributes:
      value: after less before.
      low, high: 95 % interval.
    """

    value: float
    low: float
    high: float


def logits_without(
    pooled: Float[Array, "image unit"],
    kernel: Float[Array, "unit class"],
    bias: Float[Array, "class"],
    mask: Float[Array, "unit"],
) -> Float[Array, "image class"]:
    """The logits with some units zeroed.

    Args:
      pooled: spatial means of the feature maps.
      kernel, bias: of the linear layer.
      mask: 0 for units that are zeroed, else 1.
    """
    return jnp.dot(pooled * mask, kernel, precision=_HIGHEST) + bias


def is_right(
    logits: Float[Array, "*batch class"], labels: Int[Array, "*batch"]
) -> Bool[Array, "*batch"]:
    """Whether the class is that of the highest logit; the lowest number on a tie."""
    return jnp.argmax(logits, axis=-1) == labels


def true_log_probability(
    logits: Float[Array, "*batch class"], labels: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """log softmax of the image's own class."""
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(logits, axis=-1)


@functools.partial(jax.jit, static_argnames="classes")
def single_units(
    pooled: Float[Array, "image unit"],
    kernel: Float[Array, "unit class"],
    bias: Float[Array, "class"],
    labels: Int[Array, "image"],
    classes: int,
) -> tuple[Int[Array, "unit class"], Float[Array, "unit class"]]:
    """What each unit by itself does for each class.

    Returns:
      right: how many images of each class are classified rightly without the unit.
      loss: sum over each class's images of the log-probability of the class that is
        lost without the unit (more than 0: the unit speaks for it).
    """
    logits = jnp.dot(pooled, kernel, precision=_HIGHEST) + bias
    before = true_log_probability(logits, labels)

    def without(column):
        values, weights = column
        changed = logits - values[:, None] * weights
        lost = before - true_log_probability(changed, labels)
        right = is_right(changed, labels).astype(jnp.int32)
        zeros = jnp.zeros(classes)
        return (
            zeros.astype(jnp.int32).at[labels].add(right),
            zeros.at[labels].add(lost),
        )

    # A unit at a time: [image, class] is stored, never [image, unit, class].
    return jax.lax.map(without, (pooled.T, kernel))


def paired_change(
    before: Bool[np.ndarray, "image"], after: Bool[np.ndarray, "image"], seed: int
) -> Change:
    """The change of the share that is right, with a paired bootstrap over images.

    Only how many images turn right and wrong matters: resampling images is drawing
    these two numbers.
    """
    images = len(before)
    if not images:
        return Change(0.0, 0.0, 0.0)
    gained = int((after & ~before).sum())
    lost = int((before & ~after).sum())
    shares = np.array([gained, lost, images - gained - lost]) / images
    drawn = np.random.default_rng(seed).multinomial(images, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, [0.025, 0.975])
    value = (gained - lost) / images
    return Change(100 * value, 100 * float(low), 100 * float(high))


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Interpretable units against others, equally many of both.

    Attributes:
      size: units that are zeroed.
      detectors, others: change of the share that is right without so many of them.
      difference: of detectors less others; below 0: detectors matter more.
    """

    size: int
    detectors: Change
    others: Change
    difference: Change


def contrast(
    right_without,
    is_detector: Bool[np.ndarray, "unit"],
    before: Bool[np.ndarray, "image"],
    seed: int,
    draws: int = DRAWS,
) -> Contrast | None:
    """Zeroes detectors, and as many units that are none.

    The smaller group is zeroed whole, against random ones of the larger group. Each
    draw has images of its own, too, drawn with replacement, the same for both, so that
    intervals are about other images and other choices of units.

    Args:
      right_without: bool[unit] (True: zeroed) -> bool[image], which images are right.
      is_detector: by unit.
      before: which images are right with all units.
      seed: of the draws.
      draws: how many.

    Returns:
      None where one of the groups is empty.
    """
    rng = np.random.default_rng(seed)
    groups = np.flatnonzero(is_detector), np.flatnonzero(~is_detector)
    size = min(map(len, groups))
    if not size:
        return None

    def change(units):
        zeroed = np.zeros(len(is_detector), bool)
        zeroed[units] = True
        return right_without(zeroed).astype(float) - before

    whole = [change(group) if len(group) == size else None for group in groups]
    values, resampled = [], []
    for _ in range(draws):
        weights = rng.multinomial(len(before), np.full(len(before), 1 / len(before)))
        both = [
            change(rng.choice(group, size, replace=False)) if all_ is None else all_
            for group, all_ in zip(groups, whole, strict=True)
        ]
        values.append([changed.mean() for changed in both])
        resampled.append([changed @ weights / len(before) for changed in both])
    values, resampled = 100 * np.array(values), 100 * np.array(resampled)

    def summary(centre, drawn):
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Change(float(centre.mean()), float(low), float(high))

    return Contrast(
        size,
        summary(values[:, 0], resampled[:, 0]),
        summary(values[:, 1], resampled[:, 1]),
        summary(values[:, 0] - values[:, 1], resampled[:, 0] - resampled[:, 1]),
    )
