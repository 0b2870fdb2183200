"""Builds an empty room: a box seen from the front, with side walls and a ceiling."""

from jdissect.scenes.canvas import MIDDLE
from jdissect.scenes.draws import Draws
from jdissect.scenes.palette import Stuff, as_rgb
from jdissect.scenes.stage import FLAT, Stage
from jdissect.scenes.things.walls import curtain, window
from jdissect.scenes.world import SIDE

_HEIGHT = 2.5  # of rooms, in meters

Choices = tuple[tuple[str, ...], ...]  # stuff: a material, then its colors

_WALLS: Choices = (
    ("plaster", "white", "white", "yellow", "blue", "green", "pink", "gray", "orange"),
    ("paper", "white", "yellow", "blue", "green", "pink", "purple"),
)
_FLOORS: Choices = (
    ("wood", "brown", "brown", "yellow", "gray"),
    ("fabric", "gray", "brown", "blue", "green", "red"),
    ("tile", "white", "brown", "gray"),
)


class Room:
    """A room on a stage.

    Args:
        draws: random draws of the picture.
        walls, floors: materials with their colors; (): those of any room.

    Attributes:
        stage: its stage, with walls, floor and ceiling drawn.
        wall: row where the far wall meets the floor.
        scale: pixels per meter at that wall.
        left, right: columns of the far wall's ends.
    """

    def __init__(self, draws: Draws, walls: Choices = (), floors: Choices = ()):
        self.stage = stage = Stage(
            draws, draws.uniform(36, 50), draws.uniform(1.35, 1.65)
        )
        stage.light.night = draws.chance(0.2)
        tint = draws.pick(
            ((1.05, 1.0, 0.9), (1.0, 1.0, 1.0), (0.94, 1.0, 1.06), (1.08, 0.97, 0.84))
        )
        level = draws.uniform(*((0.55, 0.75) if stage.light.night else (0.85, 1.12)))
        stage.light.rgb = as_rgb(level * factor for factor in tint)
        stage.light.across = stage.light.side * draws.uniform(0.02, 0.22)
        stage.light.down = draws.uniform(-0.1, 0.06)
        self.wall = stage.horizon + draws.uniform(27, 35)
        self.scale = stage.scale(self.wall)
        width = draws.uniform(3.6, 5.4) * self.scale
        middle = 56 + draws.uniform(-18, 18)
        self.left, self.right = middle - width / 2, middle + width / 2
        self._top = self.wall - _HEIGHT * self.scale
        self._build(
            _pale(stage.stuff(*draws.pick(walls or _WALLS)), draws.uniform(0.15, 0.4)),
            stage.stuff(*draws.pick(floors or _FLOORS)),
        )

    def _build(self, wall: Stuff, floor: Stuff) -> None:
        stage, h = self.stage, self.stage.horizon

        def out(x: float, y: float) -> tuple[float, float]:
            """Returns a point much nearer, on the line from the vanishing point."""
            return MIDDLE + (x - MIDDLE) * 4, -(h + (y - h) * 4)

        left, right, top, low = self.left, self.right, self._top, self.wall
        ceiling = stage.stuff("plaster", "white")
        if stage.draws.chance(0.15):
            ceiling = stage.stuff("wood", "brown", "yellow")
        pen = stage.flat("floor")
        pen.poly(
            "",
            floor,
            (left, -low),
            (right, -low),
            out(right, low),
            out(left, low),
            **FLAT,
        )
        pen = stage.flat("ceiling")
        pen.poly(
            "",
            ceiling,
            (left, -top),
            (right, -top),
            out(right, top),
            out(left, top),
            bright=-0.04,
        )
        pen = stage.flat("wall")
        board = stage.stuff("wood", "white", "brown", "white")
        high = 0.12 * self.scale
        for x, lit in ((left, -stage.light.side), (right, stage.light.side)):
            bright = -0.04 if lit < 0 else -0.2
            pen.poly(
                "",
                wall,
                (x, -low),
                (x, -top),
                out(x, top),
                out(x, low),
                bright=bright,
                fall=0,
                round=0,
            )
            pen.poly(
                "skirting board",
                board,
                (x, -low),
                (x, -low + high),
                out(x, low - high),
                out(x, low),
                bright=bright,
            )
        pen.box("", wall, left, -low, right, -top, fall=0.02, round=0.06)
        pen.box("skirting board", board, left, -low, right, -low + high)

    def slots(self, count: int, margin: float = 0.5) -> list[float]:
        """Returns visible columns at the far wall, evenly spaced, in random order."""
        left = max(self.left, -6) + margin * self.scale
        right = min(self.right, SIDE + 6) - margin * self.scale
        draws = self.stage.draws
        step = (right - left) / max(count, 1)
        places = [
            left + (n + 0.5 + draws.uniform(-0.14, 0.14)) * step for n in range(count)
        ]
        return [places[n] for n in draws.permutation(count)]

    def near(self, low: float, high: float) -> float:
        """Returns a row of the floor, `low` .. `high` pixels in front of the wall."""
        return min(self.wall + self.stage.draws.uniform(low, high), 110)


def _pale(stuff: Stuff, share: float) -> Stuff:
    """Mixes in white: large walls rarely have a saturated color."""
    return stuff._replace(rgb=as_rgb(c + (242 - c) * share for c in stuff.rgb))


def put_window(room: Room, x: float, curtains: float) -> None:
    """Puts a window into the far wall; `curtains` is the probability of curtains."""
    stage, draws = room.stage, room.stage.draws
    wide, high = draws.uniform(0.9, 1.7), draws.uniform(0.9, 1.25)
    lift = draws.uniform(0.85, 1.0)
    stage.put(window, x, room.wall, over=-0.6, lift=lift, wide=wide, high=high)
    if draws.chance(curtains):
        stage.put(curtain, x, room.wall, over=-0.5, wide=wide, top=lift + high + 0.15)
