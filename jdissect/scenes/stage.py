"""The stage of one picture: camera, light, time of day, and its things.

Layouts put things on the stage in any order; they are drawn from back to front. A thing
is a function `thing(stage, x, y, ...)` that draws an object touching the ground at
pixel (x, y).
"""

from collections.abc import Callable
from typing import Any

from jdissect.scenes.canvas import Canvas
from jdissect.scenes.draws import Draws
from jdissect.scenes.palette import Stuff, mix
from jdissect.scenes.pen import Pen
from jdissect.scenes.shading import Light
from jdissect.scenes.world import SIDE

Thing = Callable[..., None]

FLAT = {"ground": 1, "round": 0.0, "fall": 0.0}  # look of things lying on the ground
UPRIGHT = {"ground": 2, "round": 0.0, "fall": 0.0}  # look of things growing there


class Stage:
    """The content of a picture in the making.

    Attributes:
        draws: the picture's random draws.
        canvas: what is drawn already.
        light: the lighting.
        horizon: its row in pixels; may lie outside the picture.
        camera: height above the ground in meters.
        hazy: whether distant things fade into the air.
    """

    def __init__(self, draws: Draws, horizon: float, camera: float):
        self.draws = draws
        self.canvas = Canvas()
        self.light = Light(side=draws.sign())
        self.horizon, self.camera = horizon, camera
        self.hazy = 0.0
        self._queue: list[tuple[float, int, Thing, float, float, dict[str, Any]]] = []

    def scale(self, y: float) -> float:
        """Returns the pixels per meter on row `y` of the ground."""
        return max(y - self.horizon, 1.0) / self.camera

    def row(self, scale: float) -> float:
        """Returns the row of the ground with the given pixels per meter."""
        return self.horizon + scale * self.camera

    def stuff(self, material: str, *colors: str) -> Stuff:
        """Returns a material in one of the colors."""
        return mix(self.draws, material, *colors)

    def pen(
        self,
        name: str,
        x: float,
        y: float,
        *,
        lift: float = 0.0,
        size: float = 1.0,
        mirror: bool | None = None,
        turn: float = 0.0,
    ) -> Pen:
        """Returns the pen of a new object.

        Args:
            name: name of the object.
            x, y: where it touches the ground, in pixels.
            lift: height above the ground in meters.
            size: factor on its usual size.
            mirror: whether to swap left and right; None: random.
            turn: degrees counter-clockwise.
        """
        scale = self.scale(y)
        if mirror is None:
            mirror = self.draws.chance(0.5)
        return Pen(
            self.canvas,
            name,
            x,
            y - lift * scale,
            scale * size,
            horizon=self.horizon,
            light=self.light.side,
            mirror=mirror,
            turn=turn,
            haze=self.haze(y),
            offset=self.draws.integer(0, 255),
        )

    def haze(self, y: float) -> float:
        """Returns the share of the air's color on row `y`."""
        return self.hazy * 6 / (max(y - self.horizon, 0.0) + 6)

    def ground(
        self,
        name: str,
        stuff: Stuff,
        top: float,
        bottom: float = SIDE,
        part: str = "",
        **look: float,
    ) -> None:
        """Draws a band of ground over the whole width, from row `top` to `bottom`."""
        pen = self.flat(name)
        corners = ((0, -top), (SIDE, -top), (SIDE, -bottom), (0, -bottom))
        usual = UPRIGHT if name == "grass" else FLAT
        pen.poly(part, stuff, *corners, **(usual | look))

    def flat(self, name: str, haze: float = 0.0) -> Pen:
        """Returns a pen for large things, in pixels: u is the column, -v the row."""
        return Pen(
            self.canvas,
            name,
            0.0,
            0.0,
            1.0,
            horizon=self.horizon,
            light=self.light.side,
            haze=haze,
            offset=self.draws.integer(0, 255),
            step=1.0,
        )

    def put(self, thing: Thing, x: float, y: float, **options: Any) -> None:
        """Schedules `thing(stage, x, y, **options)` to be drawn in its order.

        More distant things come first; on the same row, those put first. The option
        `over`, which is not passed on, is added to the row for the order.
        """
        row = y + options.pop("over", 0.0)
        self._queue.append((row, len(self._queue), thing, x, y, options))

    def play(self) -> None:
        """Draws the things that were put on the stage."""
        queue, self._queue = sorted(self._queue, key=lambda entry: entry[:2]), []
        for _, _, thing, x, y, options in queue:
            thing(self, x, y, **options)

    def scatter(
        self,
        thing: Thing,
        low: int,
        high: int,
        top: float,
        bottom: float,
        **options: Any,
    ) -> None:
        """Puts low .. high copies of a thing at random between two rows."""
        for _ in range(self.draws.integer(low, high)):
            self.put(thing, self.anywhere(), self.between(top, bottom), **options)

    def anywhere(self) -> float:
        """Returns a random column of the picture."""
        return self.draws.uniform(-4, SIDE + 4)

    def between(self, top: float, bottom: float) -> float:
        """Returns a row between two; far ones are likelier, as there is more ground."""
        share = self.draws.unit()
        return top + (bottom - top) * share * (0.6 + 0.4 * share)
