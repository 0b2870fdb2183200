"""Trains a UPerNet on exact masks: batches, augmentation and losses.

Unified Perceptual Parsing (Xiao et al., ECCV 2018, section 3): cross entropy for
objects and materials over labelled pixels, for parts among those of a pixel's own
object, and for the scene of an image.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Int16, Int32, UInt8

from jdissect.augment.standard import color_jitter, pca_lighting
from jdissect.data import loader
from jdissect.data.label_maps import resample_nearest
from jdissect.data.source import Annotations, Example, Subset, share
from jdissect.runtime.devices import AXIS, Devices
from jdissect.runtime.processes import ALONE, Processes
from jdissect.scenes import ScenesSource
from jdissect.scenes.channels import NO_OWNER, channels
from jdissect.segmenters.parsing import prepare_images
from jdissect.training.batches import epoch_order

Image = UInt8[np.ndarray, "height width 3"]
Maps = Int32[np.ndarray, "map height width"]

HEADS = ("object", "part", "material", "scene")  # the first three have masks


class MaskBatch(NamedTuple):
    """A training batch of cropped pictures, with the channels of their pixels."""

    pixels: UInt8[np.ndarray, "batch window window 3"]
    masks: Int16[np.ndarray, "batch 3 grid grid"]  # channels by HEADS
    scenes: Int32[np.ndarray, " batch"]
    replaced: tuple[tuple[str, str], ...] = ()  # drawn pictures are always readable


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Geometric augmentation of a picture and its label maps.

    Attributes:
      window: side of the random crop, in pixels of the picture.
      grid: side of the masks, resampled from the crop by nearest neighbor.
      flip: whether to mirror pictures with probability 1/2.
    """

    window: int
    grid: int
    flip: bool


def mask_batches(
    source: ScenesSource,
    batch_size: int,
    geometry: Geometry,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    processes: Processes = ALONE,
) -> Iterator[MaskBatch]:
    """Yields an epoch's full batches, or shards of them, from number `start` on.

    Order and left-out pictures are as in `batches.training_batches`. Crop and flip of a
    picture are functions of (seed, epoch) and its position in the order.

    Raises:
      UserError: `source.read` raises it.
    """
    order = epoch_order(len(source.names), batch_size, seed, epoch)
    size = batch_size // processes.count
    mine, _ = share(range(len(order)), size, processes.index, processes.count)
    view = Subset(_Ordered(source, order, geometry, (seed, epoch)), mine)
    for batch in loader.batches(view, size, workers=workers, start=start):
        assert batch.labels is not None  # of a view with annotations
        masks = batch.labels.astype(np.int16)
        scenes = source.labels[order[mine[batch.index]]]
        yield MaskBatch(batch.pixels, masks, scenes)


@dataclasses.dataclass(frozen=True)
class _Ordered:
    """Pictures in an order, cropped, as a source; labels are `MaskBatch.masks`."""

    source: ScenesSource
    order: np.ndarray
    geometry: Geometry
    seeds: tuple[int, int]

    @property
    def names(self) -> np.ndarray:
        return self.order

    @property
    def image_shape(self) -> tuple[int, int]:
        return (self.geometry.window,) * 2

    @property
    def annotations(self) -> Annotations:
        return Annotations((), maps=3, grid=(self.geometry.grid,) * 2)

    def read(self, index: int) -> Example:
        example = self.source.read(int(self.order[index]))
        assert example.labels is not None  # of drawn pictures
        random = np.random.default_rng([*self.seeds, index])
        pixels, maps = crop_and_flip(
            random, example.pixels, example.labels, self.geometry
        )
        maps = resample_nearest(maps, (self.geometry.grid,) * 2)
        return Example(pixels, to_channels(maps), np.zeros(0, bool))


def crop_and_flip(
    random: np.random.Generator,
    pixels: Image,
    maps: Maps,
    geometry: Geometry,
) -> tuple[Image, Maps]:
    """Crops the same random window from a picture and its maps, perhaps mirrored."""
    window = geometry.window
    top, left = random.integers(0, np.array(maps.shape[1:]) - window + 1)
    pixels = pixels[top : top + window, left : left + window]
    maps = maps[:, top : top + window, left : left + window]
    if geometry.flip and random.integers(2):
        return pixels[:, ::-1], maps[:, :, ::-1]
    return pixels, maps


def to_channels(
    maps: Int32[np.ndarray, "4 height width"],
) -> Int16[np.ndarray, "3 height width"]:
    """Converts a world's label maps to channels of objects, parts and materials."""
    table = channels()
    objects = table.object[maps[0]]
    parts = table.part[objects, maps[1]]
    return np.stack([objects, parts, table.material[maps[2]]])


def preparation(
    settings: Any, devices: Devices, *, side: int, seed: int
) -> Callable[[int, MaskBatch], dict[str, jax.Array]]:
    """Returns `(step, batch) -> batch` for `step.train_step` with `objective`.

    Random bits are a function of (seed, step) and an image's position in the batch.

    Args:
      settings: `config.augment`; only jitter and lighting are used.
      devices: devices that share the batch.
      side: side of the network's images, which are made as in `segmenters.parsing`.
      seed: seed of the run.
    """

    def prepared(step, pixels, masks, scenes):
        key = jax.random.fold_in(jax.random.key(seed), step)
        key_jitter, key_light = jax.random.split(key)
        images = pixels.astype(jnp.float32)
        if settings.jitter:
            images = color_jitter(key_jitter, images, settings.jitter)
        if settings.lighting:
            light = 255 * settings.lighting
            images = pca_lighting(key_light, images, light)
        images = prepare_images(images, side)
        masks = dict(zip(HEADS[:3], jnp.moveaxis(masks, 1, 0), strict=True))
        return {"images": images, "scene": scenes, **masks}

    split = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    compiled = jax.jit(prepared, out_shardings=split)

    def on_devices(step, batch):
        return compiled(np.int32(step), *devices.scatter(tuple(batch[:3])))

    return on_devices


def losses(
    scores: Mapping[str, Float[Array, "batch *grid channel"]],
    labels: Mapping[str, Int[Array, " batch *grid"]],
) -> dict[str, tuple[Float[Array, " batch"], Int[Array, " batch"]]]:
    """Returns each head's summed cross entropy and labelled pixels, per image.

    Args:
      scores: scores by HEADS, before softmax.
      labels: channels by HEADS. Unlabelled are 0 for objects and materials and NO_OWNER
        for parts; every scene is labelled.
    """
    of_part = labels["part"]
    owners = jnp.asarray(channels().part_owner)
    same = owners[of_part][..., None] == owners
    found = {
        name: _cross_entropy(scores[name], labels[name], labels[name] > 0)
        for name in ("object", "material")
    }
    in_group = jnp.where(same, scores["part"], -jnp.inf)
    found["part"] = _cross_entropy(in_group, of_part, of_part != NO_OWNER)
    every = jnp.ones_like(labels["scene"], bool)
    found["scene"] = _cross_entropy(scores["scene"], labels["scene"], every)
    return found


def _cross_entropy(scores, labels, labelled):
    # A comparison, not optax's gather: the last bits of the gradient are those that
    # the shipped UPerNet was trained with.
    right = labels[..., None] == jnp.arange(scores.shape[-1])
    chosen = jnp.where(right, scores, 0).sum(axis=-1)
    each = jnp.where(labelled, jax.nn.logsumexp(scores, axis=-1) - chosen, 0)
    axes = tuple(range(1, labels.ndim))
    return each.sum(axis=axes), labelled.sum(axis=axes)


def objective(
    weights: Mapping[str, float], grid: int, batch_size: int
) -> Callable[[nnx.Module, Mapping[str, jax.Array]], Float[Array, " batch"]]:
    """Returns the objective of `step.train_step`: the weighted sum of head losses.

    A head's loss is the mean over the labelled pixels of the whole batch.

    Args:
      weights: weights by HEADS.
      grid: side of the score maps.
      batch_size: images of the batch on all devices.
    """

    def each(network, batch):
        scores = network(batch["images"], HEADS, size=(grid, grid))
        total: Any = 0.0
        for name, (entropy, count) in losses(scores, batch).items():
            pixels = jnp.maximum(lax.psum(count.sum(), AXIS), 1)
            total += weights[name] * batch_size / pixels * entropy
        return total

    return each
