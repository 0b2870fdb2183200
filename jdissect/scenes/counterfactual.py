"""Changes one concept of a drawn picture and nothing else.

A picture is a list of surfaces in painting order, so a concept is changed in what was
drawn: all random numbers are drawn before, and everything else keeps its place, light
and noise.

- objects and parts are *removed*: their shapes are left out, and what is behind them
  shows. A thing that is left out whole takes its shadow and its lamp with it.
- materials and colors are *repainted*: the same shapes get another material in the same
  color, or the same material in another color, in the world's own shades.

What has nothing behind it (a sky, a room's wall) cannot be removed: see `changed`.
"""

import copy
import dataclasses

import numpy as np
from jaxtyping import Bool, Int16, UInt8

from jdissect.scenes.draws import Draws
from jdissect.scenes.palette import Stuff, as_rgb, mix
from jdissect.scenes.render import Drawing
from jdissect.scenes.world import (
    COLORS,
    CONCEPTS,
    GENERATOR_VERSION,
    MATERIALS,
)

REMOVED, REPAINTED = "removed", "repainted"
_STREAM = 2  # of a split: pictures and labels have 0 and 1


def way(number: int) -> str:
    """Returns how a concept is taken out of a picture: REMOVED or REPAINTED."""
    return REMOVED if CONCEPTS[number][1] in ("object", "part") else REPAINTED


def shows(
    maps: Int16[np.ndarray, "4 height width"], number: int
) -> Bool[np.ndarray, "height width"]:
    """Returns where label maps show a concept, in any of the maps."""
    return (maps == number).any(axis=0)


def changed(
    drawing: Drawing,
    maps: Int16[np.ndarray, "4 side side"],
    number: int,
    key: tuple[int, int, int],
) -> tuple[UInt8[np.ndarray, "side side 3"], Int16[np.ndarray, "4 side side"]] | None:
    """Draws a picture again without a concept.

    Args:
        drawing: the picture; it stays as it is.
        maps: its label maps.
        number: the concept.
        key: (seed, split, index) of the picture, for the choice of new paint.

    Returns:
        pixels and label maps; None if there is nothing behind what is removed.
    """
    if way(number) == REPAINTED:
        return _repainted(drawing, number, key).develop()
    left = _without(drawing, number)
    if not left.canvas.polygons and not left.canvas.ellipses:
        return None
    pixels, after = left.develop()
    # Every surface has an object, so 0 is where nothing is painted.
    return None if ((after[0] == 0) & (maps[0] != 0)).any() else (pixels, after)


def _without(drawing: Drawing, number: int) -> Drawing:
    """Leaves out the shapes of an object or a part."""
    canvas = drawing.canvas
    gone = [number in (one.object, one.part) for one in canvas.surfaces]
    kept = {
        one.instance for one, out in zip(canvas.surfaces, gone, strict=True) if not out
    }
    lost = {one.instance for one in canvas.surfaces} - kept
    shadows = [n for n, caster in enumerate(canvas.casters) if caster not in lost]
    left = copy.copy(canvas)
    # Numbers of surfaces stay, so that shadows fall on what they fell on.
    left.polygons = [one for one in canvas.polygons if not gone[one.surface - 1]]
    left.ellipses = [one for one in canvas.ellipses if not gone[one.surface - 1]]
    left.shadows = [canvas.shadows[n] for n in shadows]
    left.strengths = [canvas.strengths[n] for n in shadows]
    left.casters = [canvas.casters[n] for n in shadows]
    lamps = [lamp for lamp in drawing.light.lamps if lamp.instance not in lost]
    light = dataclasses.replace(drawing.light, lamps=lamps)
    return drawing._replace(canvas=left, light=light)


def _repainted(drawing: Drawing, number: int, key: tuple[int, int, int]) -> Drawing:
    """Gives the surfaces of a material or a color another one, the same for all."""
    name, category = CONCEPTS[number]
    draws = Draws(GENERATOR_VERSION, *key[:2], _STREAM, key[2], number)
    names = MATERIALS if category == "material" else COLORS
    other = draws.pick([one for one in names if one != name])
    painted: dict[tuple[int, int, int], tuple[Stuff, tuple[float, ...]]] = {}
    surfaces = []
    for one in drawing.canvas.surfaces:
        if getattr(one, category) == number:
            rgb = (one.red, one.green, one.blue)
            thing = (one.instance, one.material, one.color)
            if thing not in painted:
                new = (
                    mix(draws, other, CONCEPTS[one.color][0])
                    if category == "material"
                    else mix(draws, CONCEPTS[one.material][0], other)
                )
                painted[thing] = new, rgb
            new, first = painted[thing]
            # Shades of one thing keep their distances.
            red, green, blue = as_rgb(
                n + value - f for n, value, f in zip(new.rgb, rgb, first, strict=True)
            )
            one = one._replace(
                material=new.material,
                color=new.color,
                red=red,
                green=green,
                blue=blue,
            )
        surfaces.append(one)
    canvas = copy.copy(drawing.canvas)
    canvas.surfaces = surfaces
    return drawing._replace(canvas=canvas)
