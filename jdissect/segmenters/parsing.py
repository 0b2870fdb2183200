"""Turns pixels into label maps with networks: the pure function that a device runs.

An image's maps are, in this order (davidbau/dissect, netdissect/segmenter.py): objects,
materials, parts, and optionally top and bottom quarters, left and right quarters; then
one map per category of the color segmenter. Numbers are those of
`models.segmenter_labels`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int16, UInt8

from jdissect.base.errors import UserError
from jdissect.models import segmenter_labels
from jdissect.models.segmenter_labels import (
    ColorLabels,
    Concepts,
    ObjectLabels,
    UPerNetLabels,
)
from jdissect.models.upernet import SIDE
from jdissect.ops import components, forms
from jdissect.ops.resample import pool, resize

MEANS = (102.9801, 115.9465, 122.7717)  # blue, green, red
QUARTERS = ("netdissect", "all", "none")
QUARTER_MAPS = ("top and bottom", "left and right")

Apply = Callable[..., dict[str, Array]]


class Parser:
    """UPerNet and optionally a color network, as a function of pixels.

    Args:
      upernet: `apply(params, images, size=...)` of UPerNet, or of a network of objects
        only; see `models.upernet`.
      labels: meaning of its channels.
      color, color_labels: the same for the color network; None for no colors.
      quarters: one of QUARTERS.
      grid: side of the label maps.
      side: side of UPerNet's input images; for objects only, the labels say it.

    Attributes:
      concepts: (name, category) by number.
      map_names: what each map shows.

    Raises:
      UserError: there are more concepts than int16 can number.
    """

    def __init__(
        self,
        upernet: Apply,
        labels: UPerNetLabels | ObjectLabels,
        color: Apply | None = None,
        color_labels: ColorLabels | None = None,
        quarters: str = "netdissect",
        grid: int = 56,
        side: int = SIDE,
    ):
        self._upernet = upernet
        self._only = labels if isinstance(labels, ObjectLabels) else None
        if isinstance(labels, ObjectLabels):
            labels = labels.vocabulary()
        self._labels = labels
        self._color, self._color_labels = color, color_labels
        self._quarters, self._size, self._side = quarters, (grid, grid), side
        with_quarters = quarters != "none"
        self._numbers = segmenter_labels.upernet_concepts(labels, with_quarters)
        self.concepts: Concepts = self._numbers.concepts
        self.map_names: tuple[str, ...] = ("objects",)
        if self._only is None:
            self.map_names += ("materials", "parts")
        if with_quarters:
            self.map_names += QUARTER_MAPS
        if color_labels is not None:
            self.concepts = segmenter_labels.merged_concepts(
                self.concepts, color_labels
            )
            self.map_names += color_labels.categories
        if len(self.concepts) > np.iinfo(np.int16).max:
            raise UserError(
                f"{len(self.concepts)} concepts are too many for label maps"
            )
        self._part_tables = _part_tables(labels, self._numbers.part_numbers)

    def __call__(
        self,
        params: tuple[Any, Any],
        pixels: UInt8[Array, "batch height width 3"],
        wanted: Bool[Array, " batch"] | None = None,
    ) -> Int16[Array, "batch maps grid grid"]:
        """Returns the label maps of RGB images of any size.

        Args:
          params: parameters of UPerNet and of the color network.
          pixels: 0..255.
          wanted: images whose maps are needed; the others' may be wrong. None: all.
        """
        if not forms.on_cpu():
            return self._parse(params, pixels)
        # On CPUs, rounding may depend on an image's position in the batch, and batches
        # are not faster.

        def one(image):
            return self._parse(params, image[None])[0]

        if wanted is None:
            return lax.map(one, pixels)
        nothing = jax.eval_shape(one, pixels[0])

        def perhaps(pair):
            image, wanted = pair
            return lax.cond(
                wanted, one, lambda _: jnp.zeros(nothing.shape, nothing.dtype), image
            )

        return lax.map(perhaps, (pixels, wanted))

    def _parse(self, params, pixels):
        pixels = pixels.astype(jnp.float32)
        if self._only is not None:
            maps = [self._only_objects(self._only, params[0], pixels)]
        else:
            maps = self._objects_materials_parts(params[0], pixels)
        objects = maps[0]
        if self._quarters != "none":
            count = len(self._labels.objects) - 1
            both = components.quarters(objects, count, self._quarters)
            maps += [both[:, 0], both[:, 1]]
        if self._color is not None:
            maps += self._colors(params[1], pixels)
        return jnp.stack(maps, axis=1).astype(jnp.int16)

    def _objects_materials_parts(self, params, pixels) -> list[Array]:
        images = prepare_images(pixels, self._side)
        scores = self._upernet(params, images, size=self._size)
        objects = _argmax(scores["object"])
        materials = _argmax(scores["material"])
        offset = self._numbers.material_offset
        return [
            objects,
            jnp.where(materials > 0, materials + offset, 0),
            gate_parts(objects, scores["part"], *self._part_tables),
        ]

    def _only_objects(self, labels: ObjectLabels, params, pixels) -> Array:
        """Returns the objects; there is no channel for no label."""
        total: Any = 0
        for side in labels.segsizes:
            images = normalized(resized(pixels, side), labels)
            scores = self._upernet(params, images, size=self._size)["object"]
            one = len(labels.segsizes) == 1
            total += scores if one else jax.nn.softmax(scores, axis=-1)
        return _argmax(total) + 1

    def _colors(self, params, pixels) -> list[Array]:
        labels = self._color_labels
        assert labels is not None and self._color is not None
        first = len(self._numbers.concepts)
        _, numbers = segmenter_labels.color_concepts(labels)
        channels = {
            category: np.array(
                [i for i, (_, other) in enumerate(labels.labels) if other == category]
            )
            for category in labels.categories
        }
        totals: dict[str, Any] = dict.fromkeys(channels, 0)
        for side in labels.segsizes:
            images = normalized(pool(pixels, side), labels)
            scores = self._color(params, images, size=self._size)["color"]
            for category, probabilities in color_probabilities(
                scores, channels
            ).items():
                totals[category] += probabilities
        return [
            jnp.asarray(first + np.array(numbers)[channels[category]])[_argmax(total)]
            for category, total in totals.items()
        ]


def prepare_images(
    pixels: Float[Array, "batch height width 3"], side: int
) -> Float[Array, "batch side side 3"]:
    """Converts RGB images of 0..255 to UPerNet's input: BGR minus the means."""
    if pixels.shape[1:3] != (side, side):
        pixels = pool(pixels, side)
    return pixels[..., ::-1] - jnp.asarray(MEANS, jnp.float32)


def normalized(
    images: Float[Array, "batch height width 3"], labels: ColorLabels | ObjectLabels
) -> Float[Array, "batch height width 3"]:
    """Converts RGB images of 0..255 to the input that a network's labels describe."""
    order = slice(None, None, 1 if labels.byteorder == "RGB" else -1)
    images = images[..., order] / 255
    return (images - jnp.asarray(labels.mean)) / jnp.asarray(labels.stdev)


def resized(
    pixels: Float[Array, "batch height width 3"], side: int
) -> Float[Array, "batch side side 3"]:
    """Enlarges images bilinearly, or reduces them by averages of areas."""
    if pixels.shape[1:3] == (side, side):
        return pixels
    if max(pixels.shape[1:3]) > side:
        return pool(pixels, side)
    return resize(pixels, (side, side))


def color_probabilities(
    scores: Float[Array, "batch height width class"], channels: dict[str, np.ndarray]
) -> dict[str, Float[Array, "batch height width class_of_category"]]:
    """Applies softmax over all classes, and again per category, as the original does.

    Args:
      scores: scores of all classes.
      channels: channels of each category's classes.
    """
    overall = jax.nn.softmax(scores, axis=-1)
    return {
        category: jax.nn.softmax(overall[..., index], axis=-1)
        for category, index in channels.items()
    }


def gate_parts(
    objects: Int[Array, "batch height width"],
    scores: Float[Array, "batch height width channel"],
    channels: Int[np.ndarray, "object slot"],
    numbers: Int[np.ndarray, "object slot"],
) -> Int[Array, "batch height width"]:
    """Returns the best part of the object at each pixel; 0 without an owner.

    Args:
      objects: object numbers.
      scores: scores of all owners' part channels.
      channels: channels of each object's parts, padded with -1.
      numbers: label numbers of these channels; 0 means no label.
    """
    wanted = jnp.asarray(channels)[objects]  # [batch, height, width, slot]
    found = jnp.take_along_axis(scores, jnp.maximum(wanted, 0), axis=-1)
    best = _argmax(jnp.where(wanted >= 0, found, -jnp.inf))
    return jnp.asarray(numbers)[objects, best]


def _part_tables(labels: UPerNetLabels, part_numbers) -> tuple[np.ndarray, np.ndarray]:
    """Returns `channels` and `numbers` for `gate_parts`."""
    most = max((len(group) for _, group in labels.object_parts), default=1)
    channels = np.full((len(labels.objects), most), -1, np.int32)
    numbers = np.zeros((len(labels.objects), most), np.int32)
    first = 0
    names = np.array(labels.objects)
    for (owner, group), group_numbers in zip(
        labels.object_parts, part_numbers, strict=True
    ):
        owners = names == names[owner]  # a concept may have several numbers
        channels[owners, : len(group)] = first + np.arange(len(group))
        numbers[owners, : len(group)] = group_numbers
        first += len(group)
    return channels, numbers


def _argmax(scores: Float[Array, "*pixel class"]) -> Int[Array, "*pixel"]:
    """Returns the first index of the largest score."""
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
