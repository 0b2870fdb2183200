"""Converts the world's label maps to the channels of a UPerNet.

World numbers are unique over all categories. UPerNet's heads number objects and
materials from 0, which means no label, and parts within their owner
(`segmenter_labels.UPerNetLabels`). Concepts keep their (name, category), so results in
either numbering join by name.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16

from jdissect.base.concepts import NOTHING
from jdissect.models.segmenter_labels import UPerNetLabels
from jdissect.scenes.world import (
    CLASSES,
    CONCEPTS,
    MATERIAL_NUMBER,
    MATERIALS,
    OBJECT_NUMBER,
    OBJECT_PARTS,
    OBJECTS,
    PART_NUMBER,
    PARTS,
)

NO_OWNER = -1  # part channel of pixels whose object has no parts


class Channels(NamedTuple):
    """Maps world numbers to the channels of each head.

    Attributes:
        object, material: channel by number; 0 for numbers of other categories.
        part: channel by object and number; the group's first if the number is not a
            part of the object, NO_OWNER if the object has no parts.
        part_owner: object of each part channel.
    """

    object: Int16[np.ndarray, " number"]
    material: Int16[np.ndarray, " number"]
    part: Int16[np.ndarray, "object number"]
    part_owner: Int16[np.ndarray, " channel"]


@functools.cache
def upernet_labels() -> UPerNetLabels:
    """Returns the labels of a UPerNet for scenes."""
    return UPerNetLabels(
        objects=(NOTHING, *OBJECTS),
        parts=(NOTHING, *PARTS),
        materials=(NOTHING, *MATERIALS),
        scenes=CLASSES,
        object_parts=tuple(
            (OBJECT_NUMBER[owner], (NOTHING, *parts))
            for owner, parts in OBJECT_PARTS.items()
            if parts
        ),
    )


@functools.cache
def channels() -> Channels:
    """Returns the map from numbers to the channels of `upernet_labels`."""
    labels = upernet_labels()
    of_object = np.zeros(len(CONCEPTS), np.int16)
    of_material = np.zeros(len(CONCEPTS), np.int16)
    for channel, name in enumerate(labels.objects[1:], 1):
        of_object[OBJECT_NUMBER[name]] = channel
    for channel, name in enumerate(labels.materials[1:], 1):
        of_material[MATERIAL_NUMBER[name]] = channel
    of_part = np.full((len(labels.objects), len(CONCEPTS)), NO_OWNER, np.int16)
    owners: list[int] = []
    for owner, group in labels.object_parts:
        of_part[owner] = len(owners)
        for channel, name in enumerate(group[1:], len(owners) + 1):
            of_part[owner, PART_NUMBER[name]] = channel
        owners += [owner] * len(group)
    return Channels(of_object, of_material, of_part, np.array(owners, np.int16))
