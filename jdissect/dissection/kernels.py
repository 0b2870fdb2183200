"""Chooses the counting kernels of the devices: what each pass counts, and how.

Kernels for CPUs (`jdissect.ops`) loop over images, with tiles that stay in cache; those
for accelerators (`jdissect.ops.accelerated`) count all images of a step at once. Both
count the same integers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jdissect.dissection import unit_sharding
from jdissect.dissection.passes import Tally, add
from jdissect.ops import edge_codes, iou, refine, sketch
from jdissect.ops.accelerated import intersections
from jdissect.ops.accelerated import sketch as accelerated_sketch
from jdissect.ops.accelerated import sweep as accelerated_sweep
from jdissect.ops.accelerated.target import Target
from jdissect.ops.float_keys import cuts
from jdissect.ops.sketch import Bracket
from jdissect.runtime.devices import Devices

NAMES = ("cpu", "gpu", "tpu")
# The work of a sweep grows with its slots, and so do the bits that it finds: 3, or 5
# where each sweep needs a transfer of the features or the network once more.
_FEW_SLOTS = 8
_MORE_SLOTS = 32


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the intersections count.

    Attributes:
      groups: number of groups of images.
      categories: number of categories.
      column_of: int32, column + 1 of each concept number, 0 for none.
      category: int32, category of each column.
      group: image numbers -> group of each, int32.
    """

    groups: int
    categories: int
    column_of: Int[np.ndarray, " number"]
    category: Int[np.ndarray, " concept"]
    group: Callable[[np.ndarray], np.ndarray]


class Kernels(Protocol):
    """The counting kernels of one kind of device.

    Attributes:
      slots: number of slots of a sweep.
    """

    @property
    def slots(self) -> int: ...

    def sketch(self) -> Tally:
        """What a sketch counts, `sketch.Sketch`."""
        ...

    def edges(self, coded: edge_codes.Codes, placed: Int[np.ndarray, "e u"]) -> Any:
        """Returns a sketch's arguments: the edges as codes, and their keys."""
        ...

    def sweep(self) -> Tally:
        """What a sweep counts: int32[unit, slot]."""
        ...

    def bracket(self, bracket: Bracket) -> Any:
        """Returns a sweep's arguments."""
        ...

    def intersections(self, vocabulary: Vocabulary) -> tuple[Tally, Any]:
        """What the intersections count, `iou.Counts`, and the step's shared arrays."""
        ...


def of(devices: Devices, name: str = "", resident: bool = False) -> Kernels:
    """Returns the kernels for some devices.

    Args:
      devices: the devices that count.
      name: one of NAMES; '' for the devices' own. A kernel of other devices is
        interpreted, which is slow.
      resident: whether the devices keep the features, so that another sweep over them
        takes no transfer and no network.
    """
    own = devices.platform if devices.platform in NAMES else "cpu"
    if (name or own) == "cpu":
        return _OnCpu()
    target = Target("tpu" if (name or own) == "tpu" else "gpu", (name or own) != own)
    return _Accelerated(target, _FEW_SLOTS if resident else _MORE_SLOTS)


@dataclasses.dataclass(frozen=True)
class _OnCpu:
    slots: int = refine.SLOTS

    def sketch(self):
        return Tally(sketch.empty, _OfPixels(sketch.update), sketch.merge)

    def edges(self, coded, placed):
        del placed
        return coded

    def sweep(self):
        return _sweep_of(refine.empty, _OfPixels(refine.update))

    def bracket(self, bracket):
        return refine.as_arguments(bracket)

    def intersections(self, vocabulary):
        tally = Tally(
            empty=_empty_counts(vocabulary),
            update=_intersect,
            merge=add,
            join=iou.join,
            additive=True,
            labels=True,
            group=vocabulary.group,
        )
        return tally, (vocabulary.column_of, vocabulary.category)


@dataclasses.dataclass(frozen=True)
class _Accelerated:
    target: Target
    slots: int

    def sketch(self):
        update = _OfPixels(accelerated_sketch.update, (self.target,))
        return Tally(sketch.empty, update, sketch.merge)

    def edges(self, coded, placed):
        del coded
        return cuts(placed)

    def sweep(self):
        empty = _EmptySlots(self.slots)
        return _sweep_of(empty, _OfPixels(accelerated_sweep.update, (self.target,)))

    def bracket(self, bracket):
        return accelerated_sweep.as_arguments(bracket, self.slots)

    def intersections(self, vocabulary):
        concepts = len(vocabulary.category)
        tally = Tally(
            empty=_empty_counts(vocabulary),
            update=_AcceleratedIntersections(self.target),
            merge=add,
            join=iou.join,
            additive=True,
            labels=True,
            group=vocabulary.group,
            start=_EmptyRows(vocabulary.groups, concepts, vocabulary.categories),
            finish=intersections.finish,
            prepare=functools.partial(_prepare, vocabulary),
        )
        return tally, None


def _sweep_of(empty, update) -> Tally:
    join = functools.partial(unit_sharding.join, axis=0)
    return Tally(empty, update, add, join, additive=True)


def _intersect(state, maps, batch, cuts, shared, geometry, zero):
    column_of, category = shared
    return iou.update(
        state,
        maps,
        batch["valid"],
        column_of[batch["labels"].astype(jnp.int32)],
        batch["annotated"],
        batch["group"],
        cuts,
        category,
        geometry,
        zero,
    )


def _prepare(
    vocabulary: Vocabulary,
    labels: Int[np.ndarray, "image map mask_height mask_width"],
    valid: Bool[np.ndarray, " image"],
    annotated: Bool[np.ndarray, "image category"],
) -> dict[str, np.ndarray]:
    found, present = intersections.prepare(
        labels, valid, annotated, vocabulary.column_of, vocabulary.category
    )
    return {"labels": found, "present": present}


# The following are classes so that equal ones share a compiled program.


@dataclasses.dataclass(frozen=True)
class _OfPixels:
    """A step that counts pixels with some arguments for each unit.

    Attributes:
      update: such as `sketch.update`.
      more: its last arguments.
    """

    update: Callable[..., Any]
    more: tuple[Any, ...] = ()

    def __call__(self, state, maps, batch, per_unit, shared, geometry, zero):
        del shared
        return self.update(
            state, maps, batch["valid"], per_unit, geometry, zero, *self.more
        )


@dataclasses.dataclass(frozen=True)
class _AcceleratedIntersections:
    target: Target

    def __call__(self, state, maps, batch, cuts, shared, geometry, zero):
        del shared
        return intersections.update(
            state,
            maps,
            batch["valid"],
            batch["labels"],
            batch["present"],
            batch["annotated"],
            batch["group"],
            cuts,
            geometry,
            zero,
            self.target,
        )


@dataclasses.dataclass(frozen=True)
class _EmptySlots:
    slots: int

    def __call__(self, units: int):
        return refine.empty(units, self.slots)


@dataclasses.dataclass(frozen=True)
class _EmptyCounts:
    groups: int
    concepts: int
    categories: int

    def __call__(self, units: int) -> iou.Counts:
        return iou.empty(self.groups, self.concepts, self.categories, units)


def _empty_counts(vocabulary: Vocabulary) -> _EmptyCounts:
    return _EmptyCounts(
        vocabulary.groups, len(vocabulary.category), vocabulary.categories
    )


@dataclasses.dataclass(frozen=True)
class _EmptyRows:
    groups: int
    concepts: int
    categories: int

    def __call__(self, units: int) -> intersections.Counts:
        return intersections.empty(self.groups, self.concepts, self.categories, units)
