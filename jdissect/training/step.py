"""Runs one training step on all devices, and defines the training state.

Every device has a copy of the state (`devices.Devices.states`) and computes the
gradient of its shard of the batch; the all-reduced gradient updates every copy alike.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jdissect import augment, models
from jdissect.models import preprocess
from jdissect.runtime.devices import AXIS, Devices
from jdissect.training import batch_norm, convolution, recipe

State = dict[str, Any]  # 'params', 'statistics': nnx.State; 'optimizer': from Optax
# `(network, batch) -> per-image loss`, inside a step; the loss is their mean.
Objective = Callable[[nnx.Module, Mapping[str, jax.Array]], jax.Array]


def initial_state(
    architecture: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    values: Mapping[str, np.ndarray],
) -> State:
    """Returns the initial state for one device.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      optimizer: see `recipe.optimizer`.
      values: every parameter and statistic by name.
    """
    model = models.build_abstract(**architecture)
    _, *parts = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, statistics = (models.with_parameters(part, values) for part in parts)
    return {
        "params": params,
        "statistics": statistics,
        "optimizer": jax.jit(optimizer.init)(params),
    }


def first_copy(state: Any) -> Any:
    """Returns the first device's state, on the host; all devices' are equal."""

    def first(array):
        return np.asarray(array.addressable_shards[0].data).reshape(array.shape[1:])

    return jax.tree.map(first, state)


def parameters(state: State) -> dict[str, np.ndarray]:
    """Returns parameters and statistics by name, for `networks.save`."""
    flat = [
        *nnx.to_flat_state(state["params"]),
        *nnx.to_flat_state(state["statistics"]),
    ]
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


def classification(network: nnx.Module, batch: Mapping[str, jax.Array]) -> jax.Array:
    """A classifier's objective; the batch has the fields of `augment.Mixture`."""
    logits, _ = network(batch["images"], ())
    return recipe.mixed_cross_entropy(
        logits, batch["first"], batch["second"], batch["weight"]
    )


def train_step(
    architecture: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    devices: Devices,
    *,
    batch_size: int,
    bn_group: int,
    dtype: str = "float32",
    objective: Objective = classification,
) -> Callable[[State, Mapping[str, jax.Array]], tuple[State, jax.Array]]:
    """Returns the step `(state, batch) -> (state, loss)`.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      optimizer: see `recipe.optimizer`.
      devices: devices that share the batch.
      batch_size: images of the global batch.
      bn_group: images that are normalized together; see `batch_norm`.
      dtype: type of the computation; parameters and loss are float32.
      objective: the objective to minimize.

    Returns:
      A function of the state from `Devices.states`, which is donated, and of the
      objective's batch; the loss is [devices], equal numbers.
    """
    model = models.build_abstract(**architecture, dtype=dtype)
    batch_norm.for_training(model, bn_group, len(devices))
    if dtype == "float32" and devices.platform == "cpu":
        convolution.for_training(model)
    graph, *_ = nnx.split(model, nnx.Param, nnx.BatchStat)

    def local(state, batch, constants):
        del constants

        def loss_of(params):
            network = nnx.merge(graph, params, state["statistics"], copy=True)
            each = objective(network, batch)
            return each.sum() / batch_size, nnx.state(network, nnx.BatchStat)

        found, gradient = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        loss, statistics = found
        loss, gradient = lax.psum((loss, gradient), AXIS)
        changes, moved = optimizer.update(gradient, state["optimizer"], state["params"])
        new = {
            "params": optax.apply_updates(state["params"], changes),
            "statistics": batch_norm.average(statistics),
            "optimizer": moved,
        }
        return new, loss

    mapped = devices.spmd(local)
    return lambda state, batch: mapped(state, batch, None)


def augmentation(
    settings: Any,
    image_size: int,
    preprocessing: preprocess.Preprocessing,
    seed: int,
    devices: Devices,
) -> Callable[..., dict[str, jax.Array]]:
    """Returns `(step, pixels, sizes, labels) -> batch` for `train_step`.

    The whole batch is one array, which XLA shards over the devices, and random bits are
    a function of (seed, step) and an image's position in the batch: so, up to rounding,
    the result does not depend on the number of devices. In a multi-process run, each
    process passes its shard of the batch (see `Devices.scatter`).

    Args:
      settings: `config.augment`.
      image_size: side of the network's images.
      preprocessing: the network's preprocessing.
      seed: seed of the run.
      devices: devices that share the batch.
    """

    def normalize(images):
        return preprocess.normalize(images * 255, preprocessing)

    def augmented(step, pixels, sizes, labels):
        key = jax.random.fold_in(jax.random.key(seed), step)
        key_standard, key_mix = jax.random.split(key)
        images = augment.standard(
            key_standard,
            pixels,
            sizes,
            side=image_size,
            crop=settings.crop,
            crop_area=settings.crop_area,
            flip=settings.flip,
            jitter=settings.jitter,
            lighting=settings.lighting,
        )
        mixture = augment.mix(
            settings.recipe,
            key_mix,
            images,
            labels,
            alpha=settings.alpha,
            group=settings.group,
            one_box_per_batch=settings.one_box_per_batch,
            normalize=normalize,
        )
        return mixture._asdict()

    split = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    compiled = jax.jit(augmented, out_shardings=split)

    def on_devices(step, pixels, sizes, labels):
        return compiled(np.int32(step), *devices.scatter((pixels, sizes, labels)))

    return on_devices
