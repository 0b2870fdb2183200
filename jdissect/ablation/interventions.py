"""Computes what a network loses when some of its units are zeroed.

Zeroing a unit is an intervention: its feature map is replaced by 0 in every image, and
the rest of the network runs as before (Bau et al., "Network Dissection", 2017, and
"Understanding the role of individual units in a deep neural network", PNAS 2020). For
the last layer before the spatial mean and the linear classifier, this needs no second
forward pass: with the unit's map f_u and the classifier's weights W and b,

    logits = sum_u mean(f_u) W_u + b,     so that without the units S
    logits_S = logits - sum_{u in S} mean(f_u) W_u.

An image is *right* if no class ranks above its own (`classifier.ranks`), and its *log-
probability* is that of its class after softmax. For intervals see `paired_bootstrap`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdissect.evaluation.classifier import ranks

_CHUNK = 2**22  # logits at a time
_UNITS = 64  # units zeroed individually at a time
_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of images, one row per intervention.

    Attributes:
      right: bool[mask, image].
      log_probability: float32[mask, image], of the image's class, at most 0.
    """

    right: Bool[np.ndarray, "mask image"]
    log_probability: Float[np.ndarray, "mask image"]

    def __getitem__(self, rows: slice) -> "Outcomes":
        return Outcomes(self.right[rows], self.log_probability[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Readout:
    """The stored outputs of one forward pass, and the classifier that follows them.

    Attributes:
      pooled: float32[image, unit], spatial means of the last feature maps.
      logits: float32[image, class], computed by the network.
      labels: int[image].
      kernel: float32[unit, class], W.
      bias: float32[class], b.
    """

    pooled: Float[np.ndarray, "image unit"]
    logits: Float[np.ndarray, "image class"]
    labels: Int[np.ndarray, " image"]
    kernel: Float[np.ndarray, "unit class"]
    bias: Float[np.ndarray, "class"]


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """Effects of zeroing each unit by itself.

    Attributes:
      units: int[unit], numbers of the units.
      right: int64[unit, class], images of the class that are right without the unit.
      loss: float64[unit, class], sum of their -log-probability without it.
    """

    units: Int[np.ndarray, " unit"]
    right: Int[np.ndarray, "unit class"]
    loss: Float[np.ndarray, "unit class"]


def zeroing(units: int, zeroed: Any) -> Float[np.ndarray, " unit"]:
    """Returns the mask that zeroes some of `units` units: float32, 0 or 1."""
    mask = np.ones(units, np.float32)
    mask[zeroed] = 0
    return mask


def random_zeroing(
    group: Bool[np.ndarray, " unit"],
    size: int,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw unit"]:
    """Returns masks that zero random units of a group.

    Args:
      group: whether each unit belongs to the group.
      size: number of units to zero, at most the group's size; then there is one mask.
      draws: number of random choices.
      rng: generator of the choices.
    """
    numbers = np.flatnonzero(group)
    return np.stack(
        [
            zeroing(len(group), rng.choice(numbers, size, replace=False))
            for _ in range(1 if len(numbers) == size else draws)
        ]
    )


def outcome(
    logits: Float[Array, "image class"], labels: Int[Array, " image"]
) -> tuple[Bool[Array, " image"], Float[Array, " image"]]:
    """Returns (right, log-probability of the class) of images. Jittable."""
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return ranks(logits, labels) == 0, own


def outcomes(readout: Readout, masks: Float[np.ndarray, "mask unit"]) -> Outcomes:
    """Returns the images' outcomes with the last layer masked, without a forward pass.

    Args:
      readout: stored outputs of the images.
      masks: one factor per unit, 0 to zero it. A row of ones uses the network's own
        logits.
    """
    count, (images, classes) = len(masks), readout.logits.shape
    right = np.empty((count, images), bool)
    own = np.empty((count, images), np.float32)
    size = max(1, _CHUNK // classes)
    for row, mask in enumerate(np.asarray(masks, np.float32)):
        for part in _slices(images, size):
            labels = readout.labels[part]
            if mask.all():
                found = _outcome(readout.logits[part], labels)
            else:
                found = _masked(
                    readout.pooled[part], mask, readout.kernel, readout.bias, labels
                )
            right[row, part], own[row, part] = found
    return Outcomes(right, own)


_outcome = jax.jit(outcome)


@jax.jit
def _masked(pooled, mask, kernel, bias, labels):
    return outcome(jnp.dot(pooled * mask, kernel, precision=_HIGHEST) + bias, labels)


def each_alone(readout: Readout, units: Int[np.ndarray, " unit"]) -> Effects:
    """Returns the effect of zeroing each unit by itself, by class, without a pass.

    Logits of all [images, units, classes] never exist at once.
    """
    images, classes = readout.logits.shape
    found = []
    for chunk in _slices(len(units), _UNITS):
        numbers = np.asarray(units)[chunk]
        right = np.empty((len(numbers), images), bool)
        own = np.empty((len(numbers), images), np.float32)
        for part in _slices(images, max(1, _CHUNK // (_UNITS * classes))):
            right[:, part], own[:, part] = _without_each(
                readout.logits[part],
                readout.pooled[part][:, numbers],
                readout.kernel[numbers],
                readout.labels[part],
            )
        found.append(effects(numbers, Outcomes(right, own), readout.labels, classes))
    return Effects(
        *(
            np.concatenate([getattr(one, field.name) for one in found])
            for field in dataclasses.fields(Effects)
        )
    )


@jax.jit
def _without_each(logits, pooled, kernel, labels):
    def without(mean, weights):  # for one unit
        return outcome(logits - mean[:, None] * weights, labels)

    return jax.vmap(without, in_axes=(1, 0))(pooled, kernel)


def effects(
    units: Int[np.ndarray, " unit"],
    alone: Outcomes,
    labels: Int[np.ndarray, " image"],
    classes: int,
) -> Effects:
    """Sums outcomes by class, one row per unit that was zeroed by itself."""
    return Effects(
        np.asarray(units),
        by_class(alone.right.astype(np.int64), labels, classes),
        -by_class(alone.log_probability.astype(np.float64), labels, classes),
    )


def by_class(
    values: np.ndarray, labels: Int[np.ndarray, " image"], classes: int
) -> np.ndarray:
    """Sums [..., image] to [..., class]; 0 for a class without images."""
    total = np.zeros((*values.shape[:-1], classes), values.dtype)
    order = np.argsort(labels, kind="stable")
    there, starts = np.unique(np.asarray(labels)[order], return_index=True)
    if len(there):
        total[..., there] = np.add.reduceat(values[..., order], starts, axis=-1)
    return total


def ranking(
    alone: Effects, right: Int[np.ndarray, "class"], loss: Float[np.ndarray, "class"]
) -> Int[np.ndarray, "class unit"]:
    """Returns for each class the positions of units in `alone`, most needed first.

    Units rank by the class's images that are lost without them, then by how much the
    class's loss grows, then by the lower number. The same images choose the units and
    measure them, so the first of many look stronger than they are.

    Args:
      alone: effects of zeroing each unit.
      right: number of each class's images that are right with all units.
      loss: sum of their -log-probability.
    """
    lost, grown = right - alone.right, alone.loss - loss
    number = np.broadcast_to(alone.units[:, None], lost.shape)
    return np.lexsort((number, -grown, -lost), axis=0).T


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
