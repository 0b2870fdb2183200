"""The compiled steps of a dissection and of a training, on shapes alone.

Networks are in the form in which they run here (`models.for_inference`), of parameters
that are all 0. Nothing is run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdissect import models
from jdissect.models.segmenter_labels import UPerNetLabels
from jdissect.models.upernet import SIDE
from jdissect.ops import (
    bit_masks,
    components,
    edge_codes,
    float_keys,
    iou,
    refine,
    sketch,
    topk,
)
from jdissect.ops.edges import EDGES
from jdissect.runtime.devices import Devices
from jdissect.segmenters.parsing import Parser
from jdissect.training import recipe, step

# The published segmenters' channels.
UPERNET = {
    "name": "upernet",
    "objects": 336,
    "parts": 427,
    "materials": 26,
    "scenes": 365,
}
COLOR = {"name": "ppm", "classes": 12}
PART_SLOTS = 7  # of each of 61 owners: 427 channels


@dataclasses.dataclass(frozen=True)
class Step:
    """A function to be compiled, with the shapes of its arguments.

    Attributes:
      function: pure.
      arguments: pytrees of `jax.ShapeDtypeStruct`.
      trips: how often its `while` loops are taken to run (see `count.count`).
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    trips: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Of a layer and the masks on it.

    Attributes:
      images: number of images per step.
      units: number of units of the layer.
      grid: side of its feature maps.
      mask: side of the mask grid.
      concepts: number of concepts of the vocabulary.
      present: concepts in an image.
      maps: of labels, an image.
      groups: of images, that are counted by themselves.
    """

    images: int = 4
    units: int = 2048
    grid: int = 7
    mask: int = 56
    concepts: int = 1799
    present: int = 40
    maps: int = 6
    groups: int = 32

    @property
    def geometry(self) -> bit_masks.Geometry:
        """From the layer to the masks."""
        return bit_masks.plan((self.grid,) * 2, (self.mask,) * 2)


def shapes_of(tree: Any) -> Any:
    """A pytree of arrays as shapes."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


_ZERO = array(dtype=jnp.int32)
# Of the words of a concept that is in an image, the share that it is in: measured on
# `stages.label_maps`.
WORDS = 1 / 7


def network(
    architecture: dict[str, Any],
    images: int,
    side: int,
    *more: Any,
    fold: bool = True,
    dtype: str = "float32",
) -> Step:
    """A network's forward pass.

    Args:
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      images: number of images per step.
      side: side of the square images, in pixels.
      *more: what the network is called with beside the images.
      fold: False gives the form that the literature counts: neither folded nor
        prepared for this machine.
      dtype: type of the computation, 'float32' or 'bfloat16'.
    """
    if fold:
        names = models.shapes(models.build_abstract(**architecture))
        zeros = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
        apply, params = models.for_inference(architecture, zeros, dtype=dtype)
    else:
        apply, params = models.as_function(models.build_abstract(**architecture))

    def forward(params, pixels):
        return apply(params, pixels, *more)

    return Step(forward, (shapes_of(params), array(images, side, side, 3)))


def topk_step(shapes: Shapes) -> Step:
    """The images of highest activation, with some more images."""
    units = shapes.units

    def best(state, maps, index, valid):
        return topk.update(state, float_keys.canonical(maps), index, valid)

    index, valid = array(shapes.images, dtype=jnp.int32), _valid(shapes)
    start = jax.eval_shape(lambda: topk.empty(5, units))
    return Step(best, (start, _features(shapes), index, valid))


def sketch_step(shapes: Shapes) -> Step:
    """The sketch, with some more images."""
    units, geometry = shapes.units, shapes.geometry

    def sketched(state, maps, valid, coded, zero):
        return sketch.update(state, maps, valid, coded, geometry, zero)

    start = jax.eval_shape(lambda: sketch.empty(units))
    coded = shapes_of(edge_codes.of_edges(np.zeros((EDGES, units), np.int64))[0])
    return Step(sketched, (start, _features(shapes), _valid(shapes), coded, _ZERO))


def sweep_step(shapes: Shapes) -> Step:
    """A sweep, with some more images.

    Of its groups of 14 words 1 in 5 is taken to have a mark, and 1 in 7 of their words:
    such were the first sweep's on a ResNet-50's last maps. Of 1,024 words some have 8.
    """
    units, geometry = shapes.units, shapes.geometry

    def swept(state, maps, valid, bracket, zero):
        return refine.update(state, maps, valid, bracket, geometry, zero)

    start = jax.eval_shape(lambda: refine.empty(units))
    bracket = refine.Arguments(
        low=array(units, dtype=jnp.int32),
        shift=array(units, dtype=jnp.uint32),
        cut_low=array(units),
        cut_high=array(units),
    )
    arguments = (start, _features(shapes), _valid(shapes), bracket, _ZERO)
    # 1,024 groups at once, and of their words 1,024 at once.
    groups = geometry.blocks * units / 14
    return Step(swept, arguments, trips=(max(1, groups / 5 / 1024), 14 / 7, 8))


def intersections_step(shapes: Shapes) -> Step:
    """Intersections with all concepts, with some more images.

    Its loops are over chunks of 16 concepts, and over 4 words that a concept is in.
    """
    units, geometry, images = shapes.units, shapes.geometry, shapes.images

    def counted(state, maps, valid, labels, annotated, group, cuts, category, zero):
        rest = (annotated, group, cuts, category, geometry, zero)
        return iou.update(state, maps, valid, labels, *rest)

    start = jax.eval_shape(
        lambda: iou.empty(shapes.groups, shapes.concepts, shapes.maps, units)
    )
    arguments = (
        start,
        _features(shapes),
        _valid(shapes),
        array(images, shapes.maps, shapes.mask, shapes.mask, dtype=jnp.int32),
        array(images, shapes.maps, dtype=bool),  # a category a map
        array(images, dtype=jnp.int32),
        array(units),
        array(shapes.concepts, dtype=jnp.int32),
        _ZERO,
    )
    rounds = -(-shapes.present // 16)
    return Step(counted, arguments, trips=(rounds, geometry.blocks * WORDS / 4))


def _features(shapes: Shapes) -> jax.ShapeDtypeStruct:
    return array(shapes.images, shapes.grid, shapes.grid, shapes.units)


def _valid(shapes: Shapes) -> jax.ShapeDtypeStruct:
    return array(shapes.images, dtype=bool)


def upernet_labels() -> UPerNetLabels:
    """Labels as many as the published UPerNet's, with PART_SLOTS parts an owner."""
    names = {key: tuple(f"{key}{i}" for i in range(1, 400)) for key in ("o", "p", "m")}
    return UPerNetLabels(
        objects=("-", *names["o"][: UPERNET["objects"] - 1]),
        parts=("-", *names["p"]),
        materials=("-", *names["m"][: UPERNET["materials"] - 1]),
        scenes=("anywhere",),
        object_parts=tuple(
            (owner, ("-", *names["p"][: PART_SLOTS - 1]))
            for owner in range(1, UPERNET["parts"] // PART_SLOTS + 1)
        ),
    )


def label_maps(images: int, side: int = 56) -> Step:
    """Label maps with quarters, of UPerNet's scores."""
    parser = Parser(lambda scores, images, size: scores, upernet_labels())

    def parsed(scores, pixels):
        return parser((scores, None), pixels)

    scores = {
        name: array(images, side, side, UPERNET[f"{name}s"])
        for name in ("object", "part", "material")
    }
    return Step(parsed, (scores, array(images, SIDE, SIDE, 3, dtype=jnp.uint8)))


def quarters(images: int, side: int) -> Step:
    """The quarters of objects: 3 rounds of 3 jumps, as photographs mostly take."""

    def function(objects):
        return components.quarters(objects, UPERNET["objects"] - 1, "netdissect")

    return Step(
        function, (array(images, side, side, dtype=jnp.int32),), trips=(3, 3, 3)
    )


def training(images: int, side: int, depth: int = 18, width: int = 16) -> Step:
    """A step of training of a small ResNet, on one device."""
    architecture = {"name": f"resnet{depth}", "width": width, "classes": 100}
    optimizer = recipe.optimizer(recipe.learning_rate(0.1, ()), 0.9, 1e-4)
    names = models.shapes(models.build_abstract(**architecture))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    state = shapes_of(step.initial_state(architecture, optimizer, zeros))
    one = _Uncompiled(devices=jax.devices()[:1])
    move = step.train_step(
        architecture, optimizer, one, batch_size=images, bn_group=images
    )
    stacked = jax.tree.map(lambda a: array(1, *a.shape, dtype=a.dtype), state)
    batch = {
        "images": array(images, side, side, 3),
        "first": array(images, dtype=jnp.int32),
        "second": array(images, dtype=jnp.int32),
        "weight": array(images),
    }
    return Step(move, (stacked, batch))


class _Uncompiled(Devices):
    """Leaves compiling to others, who want to see what is compiled."""

    def spmd(self, step):
        return super().spmd(step).__wrapped__
