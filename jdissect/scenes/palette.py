"""The eleven basic colors as paints, and stuff: a material in a color.

A paint is one of a few muted shades that people would call by the color's name, with a
little random variation. Natural materials have their own shades: the white of snow is
not that of a wall, nor the green of a meadow that of a car.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jdissect.scenes.draws import Draws
from jdissect.scenes.world import COLOR_NUMBER, MATERIAL_NUMBER

Rgb = tuple[float, float, float]

_PAINTS: dict[str, tuple[Rgb, ...]] = {
    "black": ((30, 30, 33), (42, 40, 40), (24, 27, 34)),
    "blue": ((52, 92, 158), (72, 122, 182), (40, 66, 130), (108, 158, 204)),
    "brown": ((112, 76, 48), (136, 94, 60), (92, 62, 44), (152, 112, 74)),
    "gray": ((128, 129, 132), (152, 152, 150), (104, 107, 112), (168, 168, 164)),
    "green": ((66, 118, 70), (92, 142, 84), (52, 96, 66), (126, 160, 104)),
    "orange": ((224, 128, 50), (212, 110, 48), (236, 150, 76)),
    "pink": ((228, 156, 172), (216, 126, 152), (238, 182, 190)),
    "purple": ((112, 74, 140), (138, 100, 164), (92, 62, 122)),
    "red": ((178, 46, 42), (200, 62, 54), (150, 38, 44)),
    "white": ((236, 234, 228), (224, 227, 230), (240, 238, 236)),
    "yellow": ((232, 200, 78), (222, 186, 92), (240, 214, 112)),
}

# Shades of materials that determine what a color name looks like.
_SHADES: dict[tuple[str, str], tuple[Rgb, ...]] = {
    ("air", "blue"): ((112, 164, 222), (136, 182, 228), (96, 148, 212)),
    ("air", "white"): ((224, 230, 236), (238, 240, 242)),
    ("air", "gray"): ((170, 176, 184), (150, 158, 168), (186, 190, 194)),
    ("air", "orange"): ((240, 168, 104), (236, 150, 92)),
    ("air", "pink"): ((232, 168, 176), (238, 186, 186)),
    ("air", "purple"): ((136, 112, 164), (118, 98, 150)),
    ("air", "black"): ((18, 21, 34), (26, 29, 42)),
    ("asphalt", "gray"): ((104, 105, 108), (122, 122, 122), (92, 94, 99)),
    ("asphalt", "black"): ((58, 59, 63), (48, 50, 55)),
    ("foliage", "green"): ((70, 112, 48), (88, 130, 56), (54, 92, 46), (104, 142, 66)),
    ("foliage", "yellow"): ((208, 176, 66), (196, 166, 60)),
    ("foliage", "orange"): ((206, 122, 46), (196, 106, 44)),
    ("foliage", "red"): ((164, 62, 42), (150, 50, 44)),
    ("grass", "green"): ((98, 138, 58), (116, 150, 70), (84, 126, 56)),
    ("grass", "yellow"): ((206, 186, 92), (196, 172, 84)),
    ("grass", "brown"): ((146, 122, 76), (136, 110, 68)),
    ("hair", "yellow"): ((214, 180, 104), (200, 166, 92)),
    ("hair", "orange"): ((186, 104, 48),),
    ("sand", "yellow"): ((226, 204, 142), (218, 192, 126), (232, 212, 156)),
    ("sand", "orange"): ((214, 148, 88), (206, 136, 80)),
    ("sand", "brown"): ((176, 146, 108), (162, 132, 98)),
    ("sand", "white"): ((236, 228, 208),),
    ("skin", "pink"): ((234, 190, 168), (224, 176, 152)),
    ("skin", "brown"): ((146, 100, 72), (116, 78, 56), (172, 124, 92)),
    ("snow", "white"): ((236, 240, 246),),
    ("soil", "brown"): ((118, 86, 60), (98, 72, 52), (134, 102, 72)),
    ("stone", "brown"): ((144, 118, 94), (128, 102, 82)),
    ("stone", "red"): ((168, 96, 72), (156, 86, 66)),
    ("stone", "gray"): ((132, 132, 132), (150, 148, 144), (112, 114, 118)),
    ("water", "blue"): ((62, 112, 162), (76, 130, 176), (50, 96, 146)),
    ("water", "green"): ((70, 134, 126), (58, 116, 112)),
    ("water", "gray"): ((112, 126, 138), (98, 112, 124)),
    ("water", "purple"): ((104, 92, 138),),
    ("water", "black"): ((34, 42, 58),),
    ("water", "white"): ((234, 240, 242),),
    ("wood", "brown"): ((138, 96, 58), (158, 114, 72), (112, 76, 48), (176, 132, 88)),
    ("wood", "yellow"): ((218, 182, 116), (208, 170, 104)),
    ("wood", "black"): ((54, 44, 40),),
}

_JITTER = 7.0  # of 255, per channel, and as much for all channels


def as_rgb(values: Iterable[float]) -> Rgb:
    """Three numbers as a colour."""
    red, green, blue = values
    return red, green, blue


class Stuff(NamedTuple):
    """The material and color of a surface.

    Attributes:
        material: number in the vocabulary.
        color: number in the vocabulary.
        rgb: its shade, 0 .. 255, before lighting.
    """

    material: int
    color: int
    rgb: Rgb


def mix(draws: Draws, material: str, *colors: str) -> Stuff:
    """Returns a material in one of the colors, in a random shade of it."""
    color = colors[0] if len(colors) == 1 else draws.pick(colors)
    shades = _SHADES.get((material, color)) or _PAINTS[color]
    red, green, blue = draws.pick(shades)
    common = draws.uniform(-_JITTER, _JITTER)
    return Stuff(
        MATERIAL_NUMBER[material],
        COLOR_NUMBER[color],
        (
            red + common + draws.uniform(-_JITTER, _JITTER),
            green + common + draws.uniform(-_JITTER, _JITTER),
            blue + common + draws.uniform(-_JITTER, _JITTER),
        ),
    )
