"""A small procedural world: sixteen kinds of scenes with exact masks.

Pictures of 112 x 112 pixels show objects made of parts, each part with a material and a
color, in perspective, by day and by night. Nothing is downloaded: picture i of a split
is drawn from (generator version, seed, split, i) alone and has the same bits on every
platform. `jdissect.scenes.world` defines the vocabulary.

    source = open_scenes("probe")
    example = source.read(0)        # pixels; object, part, material and color maps
    source.classes[source.label(0)] # 'kitchen'
"""

from jdissect.scenes.prepared import prepare
from jdissect.scenes.source import ScenesSource, open_scenes
from jdissect.scenes.splits import SPLITS
from jdissect.scenes.world import CLASSES, CONCEPTS, GENERATOR_VERSION, SIDE

__all__ = [
    "CLASSES",
    "CONCEPTS",
    "GENERATOR_VERSION",
    "SIDE",
    "SPLITS",
    "ScenesSource",
    "open_scenes",
    "prepare",
]
