"""Draws one picture of the world from its key, purely and with reproducible bits."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, UInt8

from jdissect.scenes.canvas import Canvas
from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.countryside import farm, forest, garden
from jdissect.scenes.layouts.homes import bathroom, bedroom, kitchen, living_room
from jdissect.scenes.layouts.shores import beach, desert, mountain_lake
from jdissect.scenes.layouts.towns import playground, street
from jdissect.scenes.layouts.transport import harbour, station
from jdissect.scenes.layouts.workplaces import classroom, office
from jdissect.scenes.raster import WHOLE, View
from jdissect.scenes.shading import Light, Sensor, develop
from jdissect.scenes.stage import Stage
from jdissect.scenes.world import CLASSES, GENERATOR_VERSION, SIDE

LAYOUTS: dict[str, Callable[[Draws], Stage]] = {
    "bathroom": bathroom,
    "beach": beach,
    "bedroom": bedroom,
    "classroom": classroom,
    "desert": desert,
    "farm": farm,
    "forest": forest,
    "garden": garden,
    "harbour": harbour,
    "kitchen": kitchen,
    "living room": living_room,
    "mountain lake": mountain_lake,
    "office": office,
    "playground": playground,
    "railway station": station,
    "street": street,
}

_PICTURES, _LABELS = 0, 1  # streams of a split


def label(seed: int, split: int, index: int) -> int:
    """Returns the class of a picture without drawing it: an index into `CLASSES`.

    Each aligned run of len(CLASSES) pictures shows each class once.
    """
    block, place = divmod(index, len(CLASSES))
    return _block_labels(seed, split, block)[place]


@functools.lru_cache(maxsize=4096)
def _block_labels(seed: int, split: int, block: int) -> list[int]:
    draws = Draws(GENERATOR_VERSION, seed, split, _LABELS, block)
    return draws.permutation(len(CLASSES))


def _frame(draws: Draws) -> View:
    """Returns a view of the whole stage, or a closer one of a part."""
    if draws.chance(0.5):
        return WHOLE
    zoom = draws.uniform(1.1, 1.7)
    spare = SIDE - SIDE / zoom
    return View(zoom, draws.uniform(0.0, spare), draws.uniform(0.2, 1.0) * spare)


class Drawing(NamedTuple):
    """Everything that is drawn of one picture, before it is developed.

    Attributes:
        canvas: its surfaces and shapes.
        light: its lighting.
        sensor: the camera's imperfections.
        horizon: row of the horizon in pixels.
        view: the part of the stage that it shows.
    """

    canvas: Canvas
    light: Light
    sensor: Sensor
    horizon: float
    view: View

    def develop(
        self,
    ) -> tuple[UInt8[np.ndarray, "side side 3"], Int16[np.ndarray, "4 side side"]]:
        """Returns pixels, and label maps (object, part, material, color)."""
        return develop(*self)


def draw(seed: int, split: int, index: int) -> Drawing:
    """Draws picture `index` of a split."""
    draws = Draws(GENERATOR_VERSION, seed, split, _PICTURES, index)
    stage = LAYOUTS[CLASSES[label(seed, split, index)]](draws)
    stage.play()
    sensor = Sensor(
        blur=draws.uniform(0.0, 0.45),
        noise=draws.uniform(0.5, 5.0),
        vignette=draws.uniform(0.0, 0.1),
        offset=draws.integer(0, 2**20),
    )
    return Drawing(stage.canvas, stage.light, sensor, stage.horizon, _frame(draws))


def render(
    seed: int, split: int, index: int
) -> tuple[UInt8[np.ndarray, "side side 3"], Int16[np.ndarray, "4 side side"]]:
    """Draws and develops picture `index` of a split.

    Returns:
        pixels, and label maps in the order object, part, material, color.
    """
    return draw(seed, split, index).develop()
