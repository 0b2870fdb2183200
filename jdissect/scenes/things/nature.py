"""Plants, rocks and mountains."""

from jdissect.scenes.palette import Stuff, as_rgb
from jdissect.scenes.stage import Stage
from jdissect.scenes.world import SIDE


def mountains(stage: Stage, base: float, tallest: float, snow: float = 0.5) -> None:
    """Draws a ridge over the whole width, at once.

    Args:
        base: row of its foot.
        tallest: height of its highest peak in pixels.
        snow: probability of white peaks.
    """
    draws = stage.draws
    slope = stage.stuff("stone", "gray", "gray", "brown", "blue")
    if draws.chance(0.3):
        slope = stage.stuff("foliage", "green")
    white = stage.stuff("snow", "white") if draws.chance(snow) else None
    pen = stage.flat("mountain", haze=draws.uniform(0.1, 0.45))
    x = draws.uniform(-40, -10)
    height = tallest * draws.uniform(0.2, 0.6)
    rising = True
    while x < SIDE:
        step = draws.uniform(10, 26)
        goal = tallest * (
            draws.uniform(0.6, 1.0) if rising else draws.uniform(0.1, 0.5)
        )
        bright = 0.12 if rising == (stage.light.side < 0) else -0.16
        pieces = draws.integer(2, 3)
        for piece in range(pieces):
            share = (piece + 1) / pieces
            end = height + (goal - height) * (share if share == 1 else 0)
            if share < 1:
                end = height + (goal - height) * (share + draws.uniform(-0.2, 0.2))
            right = x + step / pieces
            facet = bright + draws.uniform(-0.05, 0.05)
            pen.poly(
                "",
                slope,
                (x, -base),
                (right, -base),
                (right, end - base),
                (x, height - base),
                bright=facet,
                round=0,
            )
            line = tallest * draws.uniform(0.56, 0.66)
            if white and max(height, end) > line:
                low, high = min(height, line), min(end, line)
                drop = draws.uniform(0, 0.08) * tallest
                pen.poly(
                    "peak",
                    white,
                    (x, max(low - drop, 0) - base),
                    (right, max(high - drop, 0) - base),
                    (right, end - base),
                    (x, height - base),
                    bright=facet * 0.7,
                    round=0,
                )
            x, height = right, end
        rising = not rising


def rock(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a boulder, about 0.7 m."""
    draws = stage.draws
    pen = stage.pen("rock", x, y, size=size * draws.uniform(0.6, 1.5))
    stone = stage.stuff("stone", "gray", "gray", "brown")
    pen.shadow(-0.6, 0.6, 0.3)
    top = draws.uniform(0.45, 0.8)
    lean = draws.uniform(-0.2, 0.2)
    pen.poly(
        "",
        stone,
        (-0.6, 0),
        (-0.58, top * 0.5),
        (lean - 0.2, top),
        (lean + 0.2, top * 0.95),
        (0.55, top * 0.45),
        (0.6, 0),
        round=0.2,
        fall=0.2,
    )
    facet = (
        (lean - 0.2, top),
        (lean + 0.2, top * 0.95),
        (0.1, top * 0.55),
        (-0.3, top * 0.5),
    )
    pen.poly("", stone, *facet, bright=0.14)


def leaves(stage: Stage) -> Stuff:
    """Returns foliage of the picture's season."""
    return stage.stuff("foliage", *["green"] * 7, "yellow", "orange", "red")


def tree(
    stage: Stage, x: float, y: float, size: float = 1.0, leaf: Stuff | None = None
) -> None:
    """Draws a broad tree, about 6 m."""
    draws = stage.draws
    pen = stage.pen("tree", x, y, size=size * draws.uniform(0.8, 1.25))
    bark = stage.stuff("wood", "brown", "brown", "gray", "black")
    leaf = leaf or leaves(stage)
    trunk = draws.uniform(1.6, 2.4)
    pen.shadow(-1.6, 1.6, 1.0)
    pen.limb("trunk", bark, (0, 0), (0.05, trunk + 0.6), 0.5, 0.3, round=0.25, grain=1)
    for side in (-1, 1):
        end = (side * draws.uniform(0.7, 1.1), trunk + draws.uniform(0.7, 1.1))
        pen.limb("trunk", bark, (0, trunk * 0.75), end, 0.24, 0.12, bright=-0.1)
    wide, high = draws.uniform(1.5, 2.1), draws.uniform(1.5, 2.1)
    middle = trunk + high * 0.85
    for u, v, r, bright in (
        (-0.5, -0.42, 0.5, -0.2),
        (0.5, -0.42, 0.5, -0.22),
        (0.0, -0.25, 0.62, -0.14),
        (-0.55, 0.1, 0.5, 0.0),
        (0.55, 0.12, 0.5, 0.0),
        (0.0, 0.35, 0.6, 0.08),
        (stage.light.side * 0.25, 0.5, 0.38, 0.17),
    ):
        pen.disc(
            "crown",
            leaf,
            (u + draws.uniform(-0.12, 0.12)) * wide,
            middle + (v + draws.uniform(-0.1, 0.1)) * high,
            r * wide * draws.uniform(0.85, 1.15),
            r * high * draws.uniform(0.8, 1.05),
            bright=bright,
            round=0.12,
            fall=0.16,
        )


def fir(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a conifer, about 7 m."""
    draws = stage.draws
    pen = stage.pen("fir", x, y, size=size * draws.uniform(0.75, 1.3))
    bark = stage.stuff("wood", "brown")
    needle = stage.stuff("foliage", "green")
    needle = needle._replace(
        rgb=as_rgb(c * f for c, f in zip(needle.rgb, (0.62, 0.8, 0.85), strict=True))
    )
    pen.shadow(-1.3, 1.3, 0.7)
    pen.limb("trunk", bark, (0, 0), (0, 1.6), 0.36, round=0.2, grain=1)
    wide = draws.uniform(1.4, 1.9)
    for tier in range(5):
        low, w = 0.9 + tier * 1.15, wide * (1 - tier * 0.18)
        droop = draws.uniform(0.1, 0.3)
        pen.poly(
            "crown",
            needle,
            (-w, low - droop),
            (w, low - droop),
            (0, low + 2.0),
            bright=-0.1 + 0.05 * tier,
            round=0.2,
            fall=0.16,
        )


def palm(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a palm, about 6 m, leaning."""
    draws = stage.draws
    pen = stage.pen("palm", x, y, size=size * draws.uniform(0.8, 1.2))
    bark = stage.stuff("wood", "brown", "gray")
    leaf = stage.stuff("foliage", "green")
    pen.shadow(-1.2, 1.2, 0.6)
    lean, u, v = draws.uniform(0.1, 0.35), 0.0, 0.0
    for piece in range(5):
        end = (u + lean * (0.4 + piece * 0.3), v + 0.95)
        pen.limb(
            "trunk",
            bark,
            (u, v),
            end,
            0.4 - 0.04 * piece,
            0.36 - 0.04 * piece,
            round=0.25,
        )
        u, v = end
    for du, dv in (
        (-1.9, -0.5),
        (1.9, -0.6),
        (-1.5, 0.6),
        (1.6, 0.5),
        (-0.7, -1.3),
        (0.8, -1.2),
        (0.2, 1.1),
    ):
        du, dv = du * draws.uniform(0.85, 1.15), dv + draws.uniform(-0.2, 0.2)
        bend = (u + du * 0.55, v + dv * 0.5 + 0.45)
        bright = 0.1 if dv > 0 else -0.12
        pen.limb("frond", leaf, (u, v), bend, 0.22, 0.55, bright=bright)
        pen.limb(
            "frond", leaf, bend, (u + du, v + dv), 0.55, 0.08, bright=bright - 0.06
        )


def bush(
    stage: Stage, x: float, y: float, size: float = 1.0, leaf: Stuff | None = None
) -> None:
    """Draws a round shrub, about 1 m, sometimes with berries or blossoms."""
    draws = stage.draws
    pen = stage.pen("bush", x, y, size=size * draws.uniform(0.8, 1.4))
    leaf = leaf or stage.stuff("foliage", "green")
    pen.shadow(-0.8, 0.8, 0.4)
    for u, v, r, bright in (
        (-0.45, 0.3, 0.4, -0.12),
        (0.45, 0.3, 0.4, -0.12),
        (0, 0.5, 0.5, 0.05),
        (stage.light.side * 0.2, 0.66, 0.3, 0.14),
    ):
        pen.disc(
            "",
            leaf,
            u + draws.uniform(-0.08, 0.08),
            v,
            r,
            r * 0.9,
            bright=bright,
            round=0.12,
            fall=0.18,
        )
    if draws.chance(0.45):
        berry = stage.stuff("foliage", "red", "pink", "white", "purple", "yellow")
        for _ in range(7):
            pen.disc(
                "berry", berry, draws.uniform(-0.6, 0.6), draws.uniform(0.25, 0.8), 0.09
            )


def flower(
    stage: Stage, x: float, y: float, size: float = 1.0, petal: Stuff | None = None
) -> None:
    """Draws three or four flowers, about 0.5 m."""
    draws = stage.draws
    pen = stage.pen("flower", x, y, size=size * draws.uniform(0.8, 1.2))
    green = stage.stuff("foliage", "green")
    petal = petal or stage.stuff(
        "foliage", "red", "pink", "white", "purple", "yellow", "orange", "blue"
    )
    heart = stage.stuff("foliage", "yellow")
    for _ in range(draws.integer(3, 4)):
        u, v = draws.uniform(-0.35, 0.35), draws.uniform(0.35, 0.65)
        pen.limb("stem", green, (u * 0.6, 0), (u, v), 0.05)
        pen.disc("stem", green, u * 0.8 + 0.06, v * 0.4, 0.11, 0.05, tilt=40)
        pen.disc("petal", petal, u, v, 0.13, bright=0.05, round=0.1)
        if pen.scale > 16:
            pen.disc("petal", heart, u, v, 0.045, bright=0.1)


def cactus(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a saguaro, about 3 m."""
    draws = stage.draws
    pen = stage.pen("cactus", x, y, size=size * draws.uniform(0.7, 1.2))
    green = stage.stuff("foliage", "green")
    pen.shadow(-0.5, 1.1, 0.3)
    tall = draws.uniform(2.4, 3.2)
    for side in (-1, 1)[: draws.integer(1, 2)]:
        low, out = draws.uniform(0.8, 1.5), side * draws.uniform(0.6, 0.8)
        up = low + draws.uniform(0.6, 1.1)
        pen.limb("branch", green, (0, low), (out, low), 0.3, bright=-0.12)
        pen.disc("branch", green, out, low, 0.16, bright=-0.06)
        pen.limb("branch", green, (out, low), (out, up), 0.32, round=0.25, grain=1)
        pen.disc("branch", green, out, up, 0.16, bright=0.05)
    pen.limb("stem", green, (0, 0), (0, tall), 0.46, round=0.3, grain=1)
    pen.disc("stem", green, 0, tall, 0.23, round=0.25)
