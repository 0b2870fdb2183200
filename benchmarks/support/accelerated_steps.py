"""The steps of a dissection as accelerators run them, on shapes alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.support.steps import (
    COLOR,
    UPERNET,
    Shapes,
    Step,
    array,
    label_maps,
    network,
    topk_step,
)
from jdissect.ops import edges, refine, sketch
from jdissect.ops.accelerated import intersections
from jdissect.ops.accelerated import sketch as accelerated_sketch
from jdissect.ops.accelerated import sweep as accelerated_sweep
from jdissect.ops.accelerated.pixels import layout
from jdissect.ops.accelerated.target import Target

IMAGES = 32
# Slots of a sweep over features that stay on the device, and over others.
SLOTS, MORE_SLOTS = 8, 32
# A ResNet-50's layers: side of the maps, and units.
LAYERS = {
    "conv1": (112, 64),
    "layer1": (56, 256),
    "layer2": (28, 512),
    "layer3": (14, 1024),
}
LAST = (7, 2048)
LABEL_MAPS = "label maps"
_SEGMENTED = 8  # images a step, as `config.segmenter.batch_size`
_ZERO = array(dtype=jnp.int32)


def counting(grid: int, units: int, images: int = IMAGES) -> dict[str, Step]:
    """The steps that count, on maps of a size."""
    shapes = Shapes(images=images, units=units, grid=grid, present=64)
    geometry = shapes.geometry
    maps = array(images, grid, grid, units)
    valid = array(images, dtype=bool)
    # Pixel rows of a cell, the loop of unknown length in `count_above`.
    trips = (geometry.rows.target / len(layout(geometry.rows).low),)
    state = jax.eval_shape(lambda: sketch.empty(units))
    rows = jax.eval_shape(
        lambda: intersections.empty(shapes.groups, shapes.concepts, shapes.maps, units)
    )
    labels = array(images, shapes.maps, shapes.mask, shapes.mask, dtype=jnp.int16)
    present = array(images, shapes.present, dtype=jnp.int32)
    annotated = array(images, shapes.maps, dtype=bool)
    group = array(images, dtype=jnp.int32)

    def sweep(slots: int) -> Step:
        counts = jax.eval_shape(lambda: refine.empty(units, slots))
        ends = accelerated_sweep.Ends(array(slots + 1, units))
        function = _ByPlatform(accelerated_sweep.update, geometry)
        return Step(function, (counts, maps, valid, ends, _ZERO), trips)

    overlap = (rows, maps, valid, labels, present, annotated, group, array(units))
    return {
        "sketch": Step(
            _ByPlatform(accelerated_sketch.update, geometry),
            (state, maps, valid, array(edges.EDGES, units), _ZERO),
            trips,
        ),
        "sweep": sweep(SLOTS),
        f"sweep of {MORE_SLOTS} slots": sweep(MORE_SLOTS),
        "intersections": Step(
            _ByPlatform(intersections.update, geometry), (*overlap, _ZERO)
        ),
        "top-k": topk_step(shapes),
    }


def all_counting() -> dict[str, Step]:
    """Those of all layers of a ResNet-50; the last one's without the layer's name."""
    found = counting(*LAST)
    for layer, size in LAYERS.items():
        found |= {f"{name}, {layer}": step for name, step in counting(*size).items()}
    return found


def networks(dtype: str) -> dict[str, tuple[Step, int]]:
    """Returns the networks of a dissection: {name, with its type: (step, images)}."""
    found = {
        "ResNet-50": ({"name": "resnet50"}, IMAGES, 224),
        "UPerNet": (UPERNET, 1, 480),
        "color network": (COLOR, 1, 480),
    }
    return {
        f"{name}, {dtype}": (network(*size, dtype=dtype), size[1])
        for name, size in found.items()
    }


def segmentation() -> dict[str, tuple[Step, int]]:
    """Returns what makes label maps of UPerNet's scores: {name: (step, images)}."""
    return {LABEL_MAPS: (label_maps(_SEGMENTED), _SEGMENTED)}


def of_target(step: Step, target: Target) -> Step:
    """Returns a step that counts for one kind of device, to be counted or run."""
    function = step.function
    if isinstance(function, _ByPlatform):
        function = functools.partial(function.of, target)
    return Step(function, step.arguments, step.trips)


class _ByPlatform:
    """A function whose kernels are those of the platform it is compiled for."""

    def __init__(self, function: Callable[..., Any], geometry: Any):
        self._function, self._geometry = function, geometry

    def of(self, target: Target, *arguments):
        *rest, zero = arguments
        return self._function(*rest, self._geometry, zero, target)

    def __call__(self, *arguments):
        return jax.lax.platform_dependent(
            *arguments,
            cuda=functools.partial(self.of, Target("gpu")),
            tpu=functools.partial(self.of, Target("tpu")),
        )
