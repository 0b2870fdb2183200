"""What a network loses when units of it are zeroed: the numbers of an ablation.

Zeroing a unit is an intervention: its feature map is replaced by 0 in every image, and
the rest of the network runs as before (Bau et al., "Network Dissection", 2017, and
"Understanding the role of individual units in a deep neural network", PNAS 2020).
Of the last layer before the spatial mean and the linear classifier this needs no second
forward pass: with f_u the unit's map, W and b the classifier's weights,

    logits = sum_u mean(f_u) W_u + b,     so that without the units S
    logits_S = logits - sum_{u in S} mean(f_u) W_u.

An image is *right* if no class comes before its own (`classifier.ranks`), and its *log-
probability* is that of its class after softmax. `paired_bootstrap` has the intervals.
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
_UNITS = 64  # that are zeroed one by one at a time
_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """How images fare, a row an intervention.

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
    """What one forward pass keeps of every image, and the classifier that reads it.

    Attributes:
      pooled: float32[image, unit], spatial means of the last feature maps.
      logits: float32[image, class], the network's own.
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
    """What zeroing each unit by itself does.

    Attributes:
      units: int[unit], their numbers.
      right: int64[unit, class], images of the class that are right without the unit.
      loss: float64[unit, class], sum of their -log-probability without it.
    """

    units: Int[np.ndarray, " unit"]
    right: Int[np.ndarray, "unit class"]
    loss: Float[np.ndarray, "unit class"]


def zeroing(units: int, zeroed: Any) -> Float[np.ndarray, " unit"]:
    """The mask that zeroes some of so many units: float32, 0 or 1."""
    mask = np.ones(units, np.float32)
    mask[zeroed] = 0
    return mask


def random_zeroing(
    group: Bool[np.ndarray, " unit"],
    size: int,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw unit"]:
    """Masks that zero random units of a group.

    Args:
      group: which units belong to it.
      size: how many are zeroed, at most as many as there are; then there is one mask.
      draws: random choices.
      rng: makes them.
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
    """(right, log-probability of the class) of images. Jittable."""
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return ranks(logits, labels) == 0, own


def outcomes(readout: Readout, masks: Float[np.ndarray, "mask unit"]) -> Outcomes:
    """How images fare with the last layer masked, without a forward pass.

    Args:
      readout: of the images.
      masks: a factor a unit, 0 where it is zeroed. A row of ones takes the network's
        own logits.
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
    """What zeroing each unit by itself does, by class, without a forward pass.

    Logits of all [images, units, classes] are never there at once.
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
    def without(mean, weights):  # of one unit
        return outcome(logits - mean[:, None] * weights, labels)

    return jax.vmap(without, in_axes=(1, 0))(pooled, kernel)


def effects(
    units: Int[np.ndarray, " unit"],
    alone: Outcomes,
    labels: Int[np.ndarray, " image"],
    classes: int,
) -> Effects:
    """Sums by class of what happened, a row a unit that was zeroed by itself."""
    return Effects(
        np.asarray(units),
        by_class(alone.right.astype(np.int64), labels, classes),
        -by_class(alone.log_probability.astype(np.float64), labels, classes),
    )


def by_class(
    values: np.ndarray, labels: Int[np.ndarray, " image"], classes: int
) -> np.ndarray:
    """[..., image] summed to [..., class]; 0 for a class without images."""
    total = np.zeros((*values.shape[:-1], classes), values.dtype)
    order = np.argsort(labels, kind="stable")
    there, starts = np.unique(np.asarray(labels)[order], return_index=True)
    if len(there):
        total[..., there] = np.add.reduceat(values[..., order], starts, axis=-1)
    return total


def ranking(
    alone: Effects, right: Int[np.ndarray, "class"], loss: Float[np.ndarray, "class"]
) -> Int[np.ndarray, "class unit"]:
    """For each class the places of units in `alone`, those that it needs most first.

    By the images of the class that are lost without the unit; where those are as many,
    by how much the class's loss grows, then by the lower number. Both are noted on the
    images that choose the unit, so that the first of many seem stronger than they are.

    Args:
      alone: what zeroing each unit does.
      right: images of each class that are right with all units.
      loss: the sums of their -log-probability.
    """
    lost, grown = right - alone.right, alone.loss - loss
    number = np.broadcast_to(alone.units[:, None], lost.shape)
    return np.lexsort((number, -grown, -lost), axis=0).T


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
