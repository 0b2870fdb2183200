"""What is drawn: surfaces in painting order, their shapes, and shadows."""

from typing import NamedTuple

from jdissect.scenes.raster import Ellipse, Polygon
from jdissect.scenes.world import SIDE

FOCAL = 110.0  # pixels; a field of view of 54 degrees
MIDDLE = SIDE / 2


class Surface(NamedTuple):
    """Labels and looks of one shape.

    Attributes:
        object, part, material, color: numbers in the vocabulary.
        instance: which object of the picture.
        red, green, blue: 0 .. 255, before any light.
        bright: brightness in the middle of the shape, about 1.
        across, down: change of brightness a pixel.
        x, y: where the brightness is `bright`.
        glow: share of its light that is its own, 0 .. 1.
        haze: share of the air's colour, 0 .. 1.
        ground: 1 where the texture lies flat, 2 where it stands up from the ground.
        level: detail of the texture that is left out.
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
    """Shapes in painting order; shape n is surface n + 1."""

    def __init__(self):
        self.surfaces: list[Surface] = []
        self.polygons: list[Polygon] = []
        self.ellipses: list[Ellipse] = []
        self.shadows: list[Ellipse] = []
        self.strengths: list[float] = []
        self.instances = 0
