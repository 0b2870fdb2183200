"""The published recipe: loss, optimizer, learning rate (CutMix-PyTorch, train.py)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jdissect.base.errors import UserError

DECAY = 0.1  # factor of the learning rate at each milestone
MOST_STEPS = 2**31 - 1  # steps are counted in 32 bits


def mixed_cross_entropy(
    logits: Float[Array, "batch class"],
    first: Int[Array, " batch"],
    second: Int[Array, " batch"],
    weight: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """Returns weight CE(first) + (1 - weight) CE(second) for each image."""
    one_hot = functools.partial(jax.nn.one_hot, num_classes=logits.shape[-1])
    weight = weight[:, None]
    labels = weight * one_hot(first) + (1 - weight) * one_hot(second)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), labels)


def boundaries(
    milestones: Sequence[float], epochs: int, steps_per_epoch: int
) -> tuple[int, ...]:
    """Returns the steps at which the learning rate drops.

    Args:
      milestones: numbers below 1 are shares of `epochs`, others are epochs.
      epochs: number of epochs.
      steps_per_epoch: steps per epoch.

    Raises:
      UserError: the milestones are not positive and ascending.
    """
    try:
        numbers = [float(value) for value in milestones]
    except (TypeError, ValueError):
        numbers = [-1.0]
    if any(number <= 0 for number in numbers) or sorted(numbers) != numbers:
        raise UserError(
            f"config.train.milestones is {tuple(milestones)}; it must be ascending "
            "epochs such as 75,150,225, or shares of them such as 0.25,0.5,0.75"
        )
    epoch = [number * epochs if number < 1 else number for number in numbers]
    # Milestones beyond the largest step count are never reached.
    return tuple(round(min(n * steps_per_epoch, MOST_STEPS)) for n in epoch)


def learning_rate(initial: float, steps: Sequence[int]) -> optax.Schedule:
    """Returns a schedule: `initial`, times `DECAY` from each of `steps` on."""
    rates = [initial * DECAY**index for index in range(len(steps) + 1)]
    return optax.join_schedules([optax.constant_schedule(r) for r in rates], steps)


def polynomial(initial: float, steps: int, power: float = 0.9) -> optax.Schedule:
    """initial (1 - step / steps) ** power, as semantic-segmentation-pytorch has it.

    It is 0 from the last step on, where optax's, compiled, may not be a number.
    """

    def rate(step):
        left = 1 - jnp.asarray(step, jnp.float32) / steps
        return initial * jnp.maximum(left, 0) ** power

    return rate


def optimizer(
    rate: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns SGD with Nesterov momentum as in PyTorch.

    g <- gradient + weight_decay * p;  v <- momentum * v + g;
    p <- p - rate * (g + momentum * v). Every parameter decays, including biases and
    those of batch normalization.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(rate, momentum=momentum, nesterov=True),
    )
