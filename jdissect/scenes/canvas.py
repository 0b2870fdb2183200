"""The drawn content of a picture: surfaces in painting order, shapes, and shadows."""

from typing import NamedTuple

from jdissect.scenes.raster import Ellipse, Polygon
from jdissect.scenes.world import SIDE

FOCAL = 110.0  # pixels; a field of view of 54 degrees
MIDDLE = SIDE / 2


class Surface(NamedTuple):
    """Labels and appearance of one shape.

    Attributes:
        object, part, material, color: numbers in the vocabulary.
        instance: number of the object in the picture.
        red, green, blue: 0 .. 255, before lighting.
        bright: brightness in the middle of the shape, about 1.
        across, down: change of brightness per pixel.
        x, y: position where the brightness is `bright`.
        glow: share of its light that it emits, 0 .. 1.
        haze: share of the air's color, 0 .. 1.
        ground: 1 if the texture lies flat, 2 if it stands up from the ground.
        level: texture detail that is left out.
        ux, uy, u, vx, vy, v: texture coordinates (1/256 texels) are u + ux x + uy y
            and v + vx x + vy y.
    """

    object: int
    part: int
    material: int
    color: int
    instance: int
    red: float
    green: float
    blue: float
    bright: float
    across: float
    down: float
    x: float
    y: float
    glow: float
    haze: float
    ground: int
    level: int
    ux: int
    uy: int
    u: int
    vx: int
    vy: int
    v: int


class Canvas:
    """Shapes in painting order; shape n is surface n + 1.

    `casters` has the instance that casts each shadow.
    """

    def __init__(self):
        self.surfaces: list[Surface] = []
        self.polygons: list[Polygon] = []
        self.ellipses: list[Ellipse] = []
        self.shadows: list[Ellipse] = []
        self.strengths: list[float] = []
        self.casters: list[int] = []
        self.instances = 0
